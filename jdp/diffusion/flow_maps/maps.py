"""The type of flow maps, and what their losses share."""

from typing import Protocol

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import bind, expand


class FlowMap(Protocol):
    """`(x, sigma, sigma_next) -> x_next`, along the ODE from one level to a lower one.

    `x` is `[B, ..., D]`, both levels prefixes of its shape; entries that are at level 0 before and after stay
    as they are. Like a denoiser, a map is a pytree.
    """

    def __call__(self, x: Array, sigma: Array, sigma_next: Array) -> Array: ...


def _hold_map(
    flow_map: FlowMap, known: Array, mask: Array, x: Array, sigma: Array, sigma_next: Array
) -> Array:
    known, mask = jnp.broadcast_to(known, x.shape), jnp.broadcast_to(mask, x.shape)
    before, after = (
        jnp.where(mask, 0.0, jnp.broadcast_to(expand(s, x), x.shape)) for s in (sigma, sigma_next)
    )
    return jnp.where(mask, known, flow_map(jnp.where(mask, known, x), before, after))


def hold_map(flow_map: FlowMap, known: Array, mask: Array) -> Partial:
    """`guidance.hold` at level 0 for flow maps: the entries where `mask` are clean, and stay `known`."""
    return bind(_hold_map, flow_map, jnp.asarray(known), jnp.asarray(mask))


def levels_beside(known: Array | None, rows: Array, x0: Array) -> Array:
    """Levels `[B]` as they are, or as a longer prefix of `x0` that is 0 where `known`."""
    if known is None:
        return rows
    known = jnp.broadcast_to(known, x0.shape[: known.ndim])
    return jnp.where(known, 0.0, expand(rows, known.astype(rows.dtype)))


def squared_error(error: Array, levels: Array, weight: Array | None) -> Array:
    """The mean over all entries, to which those at level 0 contribute nothing."""
    square = jnp.where(expand(levels, error) > 0, jnp.square(error), 0.0)
    return jnp.mean(square if weight is None else expand(weight, error) * square)
