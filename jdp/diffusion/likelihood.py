"""Exact likelihood of a denoiser, by its probability flow (arXiv 2011.13456, section 4.3).

Between two levels the flow `dx / d ln sigma = x - D(x, sigma)` carries the density of noised data along, and
`d ln p / d ln sigma = -tr(1 - dD / dx)` says what its volume does. So the log density of data is that of the
noise at which they end, plus the integral of a trace.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import Denoiser, PyTree

DIRECTIONS = 32  # of a Jacobian, that are computed at a time


def rising(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Array:
    """`[n + 1]`, levels with equal ratios from `sigma_min` up to `sigma_max`: where `log_density` steps."""
    return jnp.asarray(jnp.geomspace(sigma_min, sigma_max, n + 1), jnp.float32)


def directions(x: Array) -> Array:
    """`[N, 1, ...]`, those of the N entries of a row of `x` `[B, ...]`."""
    size = math.prod(x.shape[1:])
    return jnp.eye(size, dtype=x.dtype).reshape(size, 1, *x.shape[1:])


def probing(key: Array | None, probes: int, x: Array) -> Array | None:
    """`[probes, B, ...]`, random signs for rows `x` `[B, ...]`; without a key None, for exact traces."""
    return None if key is None else jax.random.rademacher(key, (probes, *x.shape), x.dtype)


def value_and_trace(
    function: Callable[[Array], Array], x: Array, probes: Array | None
) -> tuple[Array, Array]:
    """`(f(x), tr df / dx [B])` of a function of rows `[B, ...]`, each of which knows only its own.

    Args:
        probes: `[P, B, ...]` of independent signs: the mean of `v . (df / dx) v` over them, without bias
            (Hutchinson 1990; arXiv 1810.01367). None: the exact trace, an entry of a row at a time.
    """
    value, linear = jax.linearize(function, x)
    axes = tuple(range(1, x.ndim))

    def along(direction: Array) -> Array:
        tangent = jnp.broadcast_to(direction, x.shape)
        return jnp.sum(linear(tangent) * tangent, axis=axes)

    if probes is not None:
        return value, jnp.mean(jax.lax.map(along, probes), axis=0)
    basis = directions(x)
    return value, jnp.sum(jax.lax.map(along, basis, batch_size=min(DIRECTIONS, len(basis))), axis=0)


def log_density(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    sigma_data: float = 1.0,
    key: Array | None = None,
    probes: int = 1,
) -> Array:
    """`[B]`, the log density in nats of rows `x` `[B, ...]`: a change of variables, not a bound.

    It is the density of data with noise of the first level, at `x`: data that are narrower than `sigmas[0]`
    in some direction have no more than that noise allows. In the coordinate `z = x / sqrt(sigma^2 +
    sigma_data^2)` the flow of `N(0, sigma_data^2)` stands still and is free of error; the rest is Runge and
    Kutta's method of fourth order in `ln sigma`, four network calls a step.

    Args:
        sigmas: `[n + 1]`, rising (`rising`); at the last one `x` counts as a Gaussian about 0, which errs by
            about `|mean of the data| / sigmas[-1]` nats.
        sigma_data: standard deviation that is expected of the data.
        key: of Hutchinson's estimate with `probes` random signs, consumed; one set of signs serves the whole
            path, so that the estimate is without bias. None: exact traces, as many derivatives as entries.
    """
    axes, size = tuple(range(1, x.ndim)), math.prod(x.shape[1:])
    signs, variance = probing(key, probes, x), sigma_data**2

    def log_spread(log_sigma: Array) -> Array:
        """`ln sqrt(sigma^2 + sigma_data^2)`."""
        return 0.5 * jnp.logaddexp(2 * log_sigma, jnp.full_like(log_sigma, 2 * math.log(sigma_data)))

    def slope(z: Array, log_sigma: Array) -> tuple[Array, Array]:
        sigma, spread = jnp.exp(log_sigma), jnp.exp(log_spread(log_sigma))
        kept, at = variance / jnp.square(spread), z * spread
        levels = jnp.broadcast_to(sigma, x.shape[:1])
        clean, trace = value_and_trace(lambda x: denoiser(x, levels), at, signs)
        return (kept * at - clean) / spread, kept * size - trace

    def step(state: tuple[Array, Array], pair: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (low, high), nothing = pair, jax.tree.map(jnp.zeros_like, state)
        h = high - low

        def stage(
            carry: tuple[PyTree, PyTree], at: tuple[Array, Array]
        ) -> tuple[tuple[PyTree, PyTree], None]:
            (last, total), (share, weight) = carry, at
            found = slope(state[0] + share * h * last[0], low + share * h)
            return (found, jax.tree.map(lambda t, f: t + weight * h * f, total, found)), None

        stages = jnp.array([0, 0.5, 0.5, 1], x.dtype), jnp.array([1, 2, 2, 1], x.dtype) / 6
        (_, moved), _ = jax.lax.scan(stage, (nothing, nothing), stages)  # a loop: one network to compile
        return jax.tree.map(jnp.add, state, moved), None

    logs, nothing = jnp.log(sigmas), jnp.zeros(x.shape[:1], x.dtype)
    first = log_spread(logs[0])
    (z, volume), _ = jax.lax.scan(step, (x / jnp.exp(first), nothing), (logs[:-1], logs[1:]))
    ends = -0.5 * jnp.sum(jnp.square(z), axis=axes) - size / 2 * math.log(2 * math.pi)
    return ends + volume - size * first


def bits_per_dimension(log_density: Array, dimensions: int) -> Array:
    """`-log p / (D ln 2)` of log densities `[...]` in nats over `dimensions` D entries."""
    return -log_density / (dimensions * math.log(2))


def gaussian_bits(covariance: Array) -> Array:
    """`[]`, what `bits_per_dimension` is in the mean of `N(mean, covariance [N, N])`: no model has fewer.

    Of the first order autoregression `x' = rho x + sqrt(1 - rho^2) eps` of T rows that is
    `log2(2 pi e) / 2 + (T - 1) / 2 T log2(1 - rho^2)`.
    """
    size = covariance.shape[0]
    nats = 0.5 * (math.log(2 * math.pi * math.e) + jnp.linalg.slogdet(covariance)[1] / size)
    return nats / math.log(2)
