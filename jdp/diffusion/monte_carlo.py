"""Denoising without a network: what is sought is known by its values, and draws are weighted by these.

Model-based diffusion (Pan et al. 2024, arXiv 2407.01573): of `p(x0) ~ exp(value(x0) / temperature)`, seen as
`x = x0 + sigma eps`, the posterior is a Gaussian around `x` times `exp(value / temperature)`, so its mean is
that of draws of the Gaussian, weighted by a softmax. The papers write this in variance-preserving
coordinates, `y = sqrt(abar) x` with `sigma^2 = (1 - abar) / abar`; their step, `(y + (1 - abar) score) /
sqrt(alpha)`, is then `x <- E[x0 | x]`: down the levels, the mean of each is where the next one draws.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Value = Callable[[Array], Array]  # candidates [N, ...] -> [N]


def standardised(values: Array) -> Array:
    """`[N]`, of mean 0 and standard deviation 1; values that are equal but for rounding become 0."""
    gap = values - jnp.mean(values)
    std = jnp.std(values, ddof=1)
    return gap / jnp.where(std < 1e-4, 1.0, std)


def weights(values: Array, temperature: float, *, elites: int = 0, relative: bool = False) -> Array:
    """`[N]`, `softmax(values / temperature)`, which no constant changes.

    Args:
        values: `[N]`; those that are not finite weigh nothing.
        elites: only so many of the best count; 0: all.
        relative: whether values are standardised first: the temperature is in their standard deviations.
    """
    finite = jnp.isfinite(values)
    lowest = jnp.min(jnp.where(finite, values, jnp.inf))
    values = jnp.where(finite, values, jnp.where(jnp.isfinite(lowest), lowest, 0.0))
    logits = (standardised(values) if relative else values) / temperature
    counts = finite
    if 0 < elites < len(values):
        counts &= values >= jax.lax.top_k(values, elites)[0][-1]
    logits = jnp.where(counts | ~jnp.any(counts), logits, -jnp.inf)
    return jax.nn.softmax(logits)


def _drawn(
    key: Array, x: Array, sigma: Array, samples: int, limit: float | None, given: Array | None
) -> Array:
    """`[samples, ...]`, draws around `x` `[...]` at levels `sigma`, of a shape that `x` is broadcast with."""
    noise = jax.random.normal(key, (samples, *x.shape), x.dtype)
    drawn = x[None] + jnp.broadcast_to(sigma, x.shape)[None] * noise
    if given is not None:
        drawn = jnp.concatenate([given, drawn[len(given) :]])
    return drawn if limit is None else jnp.clip(drawn, -limit, limit)


def posterior_mean(
    key: Array,
    value: Value,
    weigh: Callable[[Array], Array],
    x: Array,
    sigma: Array,
    *,
    samples: int,
    limit: float | None = None,
    given: Array | None = None,
) -> Array:
    """`E[x0 | x]`, of the shape of `x` `[...]`, estimated by `samples` = N draws; the key is consumed.

    Args:
        value: of candidates `[N, ...]`, what is maximised.
        weigh: of values `[N]` the weights `[N]`.
        sigma: `[]`, the level.
        limit: draws are clipped to +-`limit`.
        given: `[K, ...]`, candidates that stand in the place of the first K draws.
    """
    drawn = _drawn(key, x, sigma, samples, limit, given)
    return jnp.tensordot(weigh(value(drawn)), drawn, 1)


def descend(
    key: Array,
    value: Value,
    weigh: Callable[[Array], Array],
    x: Array,
    sigmas: Array,
    *,
    samples: int,
    limit: float | None = None,
    given: Array | None = None,
) -> Array:
    """`x` after `posterior_mean` at the levels `sigmas` `[n]`, one after another; the key is consumed."""

    def body(x: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        key, sigma = step
        options = {"samples": samples, "limit": limit, "given": given}
        return posterior_mean(key, value, weigh, x, sigma, **options), None

    return jax.lax.scan(body, x, (jax.random.split(key, len(sigmas)), sigmas))[0]


def cross_entropy(
    key: Array,
    value: Value,
    weigh: Callable[[Array], Array],
    x: Array,
    std: Array,
    *,
    iterations: int,
    samples: int,
    floor: float = 0.0,
    limit: float | None = None,
    given: Array | None = None,
) -> Array:
    """`x` after `iterations` of the cross-entropy method (de Boer et al. 2005); the key is consumed.

    Each is a `posterior_mean` whose draws have a level for every entry: at first `std`, of the shape of `x`,
    then the standard deviation of the weighted draws of the iteration before, at least `floor`. Equal weights
    of elites are the method's own; weights `exp(value)` multiply the Gaussian by it at every iteration.
    """

    def body(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        drawn = _drawn(key, *carry, samples, limit, given)
        shares = weigh(value(drawn))
        mean = jnp.tensordot(shares, drawn, 1)
        spread = jnp.sqrt(jnp.tensordot(shares, jnp.square(drawn - mean[None]), 1))
        return (mean, jnp.maximum(spread, floor)), None

    return jax.lax.scan(body, (x, std), jax.random.split(key, iterations))[0][0]
