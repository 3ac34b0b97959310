"""Numbers as weights on the two nearest of evenly spaced bins."""

import jax
import jax.numpy as jnp
from jax import Array


def two_hot(value: Array, bins: int) -> Array:
    """`[...]` within [-1, 1] -> weights `[..., bins]` that sum to 1, at most two of them not 0.

    The bins' centres are `linspace(-1, 1, bins)`, and the weights those of linear interpolation, so that
    `from_two_hot` is an exact inverse. Values outside go to the nearest end. A network sees bins as many
    local features of an action, as in World4RL (see `jdp.world_models.diffusion_step`).
    """
    centres = jnp.linspace(-1.0, 1.0, bins, dtype=value.dtype)
    inside = jnp.clip(value, -1.0, 1.0)
    left = jnp.clip(jnp.floor((inside + 1) * ((bins - 1) / 2)).astype(jnp.int32), 0, bins - 2)
    width = centres[left + 1] - centres[left]
    share = jnp.clip((inside - centres[left]) / width, 0.0, 1.0)[..., None]
    one_hot = jax.nn.one_hot(left, bins, dtype=value.dtype)
    return (1 - share) * one_hot + share * jax.nn.one_hot(left + 1, bins, dtype=value.dtype)


def from_two_hot(weights: Array) -> Array:
    """`[..., bins]` -> `[...]`, the inverse of `two_hot`: the mean of the bins' centres."""
    return weights @ jnp.linspace(-1.0, 1.0, weights.shape[-1], dtype=weights.dtype)
