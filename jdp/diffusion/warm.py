"""Warm starts: a sampler that begins from the last plan instead of from noise alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import expand


def warm_start(
    key: Array,
    previous: Array,
    sigma: Array | float,
    sigma_max: Array | float,
    *,
    temperature: float = 1.0,
) -> Array:
    """`sqrt(1 - (sigma / sigma_max)^2) previous + sigma eps`, a start at the level `sigma`.

    At `sigma = sigma_max` it EQUALS the cold start `sigma_max eps` of the same key (bit for bit, compiled
    alike), and the plan fades out towards it; the sampler goes on with `schedules.truncated(sigmas, sigma)`.
    `previous` is `[B, ...]`, `sigma` and `sigma_max` are prefixes of its shape (rows of a schedule with a
    level per time step, too); entries whose `sigma_max` is 0 are known, and stay. `temperature` scales the
    noise, as that of a cold start; the key is consumed.
    """
    s, top = (expand(jnp.asarray(level), previous) for level in (sigma, sigma_max))
    kept = jnp.sqrt(jnp.maximum(1 - jnp.square(s / jnp.where(top > 0, top, 1.0)), 0.0))
    return kept * previous + temperature * s * jax.random.normal(key, previous.shape, previous.dtype)


def warm_or_cold(
    warm: Array, draw_warm: Callable[[], Array], draw_cold: Callable[[], Array], axis: int = 0
) -> Array:
    """Of rows `warm` `[B]` bool what `draw_warm` draws, of the others what `draw_cold` draws.

    Both draw all rows, which lie on `axis`, and each runs only where any row needs it. (Under `vmap` both
    would run.)
    """

    def where_any(rows: Array, draw: Callable[[], Array]) -> Array:
        nothing = jax.eval_shape(draw)
        return jax.lax.cond(jnp.any(rows), draw, lambda: jnp.zeros(nothing.shape, nothing.dtype))

    drawn = where_any(warm, draw_warm), where_any(~warm, draw_cold)
    shape = (1,) * axis + warm.shape + (1,) * (drawn[0].ndim - axis - 1)
    return jnp.where(warm.reshape(shape), *drawn)
