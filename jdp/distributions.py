"""Distributions of actions, of a sampler's next state and of tokens: draws, log densities, divergences.

Entries are independent. `log_prob` and `kl` sum over named event axes, and leave out entries that a mask
excludes or that are not random: their values and gradients are finite wherever a standard deviation is 0.
"""

from typing import NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from jax import Array

Axes = tuple[int, ...]  # axes of a draw, e.g. (-1,) for actions [B, A], (-2, -1) for plans [B, T, D]


class Distribution(Protocol):
    """A distribution over arrays `[..., D]` (of tokens: `[..., L]`) of independent entries; a pytree.

    Args of `log_prob` and `kl`:
        event_axes: the axes of a draw that are summed over, `()` for none; the last one by default.
        mask: boolean, of the rank of a draw and broadcast to it: the entries that count. None: all.
    """

    @property
    def mean(self) -> Array:
        """The mean, `[..., D]` (of tokens: of their one-hot vectors, the probabilities `[..., L, V]`)."""
        ...

    def sample(self, key: Array) -> Array:
        """One draw; the key is consumed."""
        ...

    def log_prob(self, x: Array, *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """Log density (of tokens: log probability) of `x`, without the event axes."""
        ...

    def kl(self, other: Self, *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """The divergence `KL(self || other)` from another of its kind, without the event axes."""
        ...


def _summed(terms: Array, counts: Array, event_axes: Axes) -> Array:
    return jnp.sum(jnp.where(counts, terms, 0.0), axis=event_axes)


def _counting(random: Array, mask: Array | None, shape: tuple[int, ...]) -> Array:
    counts = jnp.broadcast_to(random, shape)
    return counts if mask is None else counts & jnp.broadcast_to(jnp.asarray(mask, bool), shape)


class Normal(NamedTuple):
    """A diagonal Gaussian; `std` broadcasts to `mean` and has its rank.

    An entry of `std` 0 is not random: it is its mean in every draw, and contributes 0 to `log_prob` and `kl`
    whatever `x` is there. So the `log_prob` of a deterministic actor (TD3, TD3+BC, ReBRAC and BC: `std` zero
    everywhere) is 0 and says nothing: give it a `std` where a density is needed
    (`jdp.synthesis.target_policy`).
    """

    mean: Array  # [..., D]
    std: Array  # [..., D], >= 0

    def sample(self, key: Array) -> Array:
        """`[..., D]`, one draw; the key is consumed. Of actions, it may lie outside the box."""
        return self.mean + self.std * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def log_prob(self, x: Array, *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """`[...]`, log density of `x` `[..., D]`."""
        shape = jnp.broadcast_shapes(x.shape, self.mean.shape)
        counts = _counting(self.std > 0, mask, shape)
        std = jnp.where(counts, jnp.broadcast_to(self.std, shape), 1.0)
        # Both branches are finite, so that no gradient is 0 times infinity.
        z = jnp.where(counts, x - self.mean, 0.0) / std
        return _summed(-0.5 * jnp.square(z) - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi), counts, event_axes)

    def kl(self, other: "Normal", *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """`[...]`, `KL(self || other) = ln(s' / s) + (s^2 + (m - m')^2) / 2 s'^2 - 1/2` an entry.

        Entries where either `std` is 0 contribute 0: of two steps of one sampler they are 0 together.
        """
        shape = jnp.broadcast_shapes(self.mean.shape, other.mean.shape)
        counts = _counting((self.std > 0) & (other.std > 0), mask, shape)
        std, theirs = (jnp.where(counts, jnp.broadcast_to(d.std, shape), 1.0) for d in (self, other))
        gap = jnp.where(counts, self.mean - other.mean, 0.0)
        ratio = jnp.square(std / theirs)
        return _summed(0.5 * (ratio - 1 - jnp.log(ratio) + jnp.square(gap / theirs)), counts, event_axes)


class TanhNormal(NamedTuple):
    """`tanh` of a diagonal Gaussian: a stochastic policy within the box (arXiv 1801.01290, appendix C)."""

    location: Array  # [..., A], of the Gaussian
    scale: Array  # [..., A]

    @property
    def mean(self) -> Array:
        """`[..., A]`, the action at the Gaussian's mean: what the policy does when it does not explore.

        The median of every entry; the average of draws lies nearer to 0.
        """
        return jnp.tanh(self.location)

    @property
    def std(self) -> Array:
        """`[..., A]`, the spread of actions to first order in `scale`."""
        return self.scale * (1 - jnp.square(self.mean))

    def sample(self, key: Array) -> Array:
        """`[..., A]`, one draw within (-1, 1); the key is consumed."""
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """A draw `[..., A]` and its log density `[...]`, exact at saturation; the key is consumed."""
        u = Normal(self.location, self.scale).sample(key)
        return jnp.tanh(u), self._log_prob_of(u, (-1,), None)

    def log_prob(self, x: Array, *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """`[...]`, log density of `x` `[..., A]`, clipped to +-(1 - 1e-6)."""
        u = jnp.arctanh(jnp.clip(x, -1 + 1e-6, 1 - 1e-6))
        return self._log_prob_of(u, event_axes, mask)

    def _log_prob_of(self, u: Array, event_axes: Axes, mask: Array | None) -> Array:
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), without cancellation
        slope = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))
        counts = _counting(self.scale > 0, mask, slope.shape)
        gaussian = Normal(self.location, self.scale).log_prob(u, event_axes=event_axes, mask=mask)
        return gaussian - _summed(slope, counts, event_axes)

    def kl(self, other: "TanhNormal", *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """`[...]`, that of the Gaussians, since `tanh` is one to one."""
        theirs = Normal(other.location, other.scale)
        return Normal(self.location, self.scale).kl(theirs, event_axes=event_axes, mask=mask)


class Categorical(NamedTuple):
    """Independent tokens `[..., L]`, each one of V; `-inf` forbids a token.

    The event axes are those of the tokens: of single discrete actions `[B]` they are `()`.
    """

    logits: Array  # [..., L, V], of any offset a token

    @property
    def mean(self) -> Array:
        """`[..., L, V]`, the probabilities: the mean of the tokens' one-hot vectors."""
        return jax.nn.softmax(self.logits, axis=-1)

    def sample(self, key: Array) -> Array:
        """`[..., L]` int32, one draw; the key is consumed."""
        return jax.random.categorical(key, self.logits, axis=-1)

    def log_prob(self, x: Array, *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """`[...]`, log probability of the tokens `x` `[..., L]`; `-inf` for forbidden ones that count."""
        logs = jax.nn.log_softmax(self.logits, axis=-1)
        terms = jnp.take_along_axis(logs, x[..., None].astype(jnp.int32), axis=-1)[..., 0]
        return _summed(terms, _counting(jnp.ones((), bool), mask, terms.shape), event_axes)

    def kl(self, other: "Categorical", *, event_axes: Axes = (-1,), mask: Array | None = None) -> Array:
        """`[...]`, `sum_v p_v ln(p_v / p'_v)`; infinite where `other` forbids what is possible here."""
        logs, theirs = (jax.nn.log_softmax(d.logits, axis=-1) for d in (self, other))
        possible = logs > -jnp.inf
        gap = jnp.where(possible, logs, 0.0) - jnp.where(possible, theirs, 0.0)
        terms = jnp.sum(jnp.where(possible, jnp.exp(logs) * gap, 0.0), axis=-1)
        return _summed(terms, _counting(jnp.ones((), bool), mask, terms.shape), event_axes)


ActionDistribution = Normal | TanhNormal  # a distribution over actions, of batch shape [...]
