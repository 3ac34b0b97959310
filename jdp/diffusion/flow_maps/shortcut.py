"""Shortcut models (arXiv 2410.12557), in the time `t = sigma / (1 + sigma)` of rectified flow."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.denoiser import network_levels
from jdp.diffusion.flow_maps.maps import levels_beside, squared_error
from jdp.diffusion.times import FLOW
from jdp.types import Metrics, Params, bind, expand, named_keys


def _time(sigma: Array) -> Array:
    return jnp.minimum(FLOW.time(sigma), FLOW.last)


def step_column(d: Array, steps: int) -> Array:
    """`[B]`, the size `d` of a step in `t` as the network sees it: `log2(steps d) / log2(steps)`.

    1 for the whole way; 0 for the smallest step, which stands for the infinitesimal one (section 3.2).
    """
    return jnp.log2(jnp.maximum(d * (steps / FLOW.last), 1.0)) / math.log2(steps)


def _velocity(
    params: Params, condition: Array, z: Array, t: Array, d: Array, *, apply: Callable[..., Array], steps: int
) -> Array:
    """The mean velocity on the way from `t` down to `t - d`; `z = (1 - t) x0 + t eps`, `d` is `[B]`."""
    return apply(params, z, t, jnp.concatenate([condition, step_column(d, steps)[:, None]], axis=-1))


def _condition(condition: Array | None, x: Array) -> Array:
    return jnp.zeros((x.shape[0], 0), x.dtype) if condition is None else condition


def _shortcut(
    params: Params,
    condition: Array | None,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    apply: Callable[..., Array],
    steps: int,
) -> Array:
    s, s_next = expand(sigma, x), expand(sigma_next, x)
    gap = _time(s) - _time(s_next)
    d = jnp.max(jnp.broadcast_to(gap, x.shape), axis=tuple(range(1, x.ndim)))
    z, t = x / (1 + s), _time(network_levels(sigma, x))
    z = z - gap * _velocity(params, _condition(condition, x), z, t, d, apply=apply, steps=steps)
    return (1 + s_next) * z


def shortcut(
    apply: Callable[..., Array], params: Params, *, condition: Array | None = None, steps: int = 128
) -> Partial:
    """`FlowMap` of a shortcut model (arXiv 2410.12557, equation 4): `z' = z - d s(z, t, d)`.

    `apply(params, z [B, T, D], t, condition [B, C + 1])` is the network. `condition` is `[B, C]`; the last
    column that the network sees is the size of the step (`step_column`). All noisy entries of a row make
    the same step in `t`: with a level per time step (`schedules.rolling`) the network is told of the longest
    one, and entries that wait are left to `samplers.flow_map`. Learned are steps of `1 / 2^j`, those of
    `schedules.flow(2^j)`, up to `steps`.
    """
    return bind(_shortcut, params, condition, apply=apply, steps=steps)


def _draw(keys: dict[str, Array], matched: Array, dtype, steps: int) -> tuple[Array, Array]:
    """Times and steps `[B]`: any time and step 0 where `matched`, else a step `1 / 2^j` on its own grid."""
    shape = matched.shape
    parts = 2.0 ** jax.random.randint(keys["step"], shape, 0, int(math.log2(steps))).astype(dtype)
    on_grid = (jnp.floor(jax.random.uniform(keys["start"], shape, dtype) * parts) + 1) / parts
    t = jnp.where(matched, jax.random.uniform(keys["time"], shape, dtype), on_grid)
    return t * FLOW.last, jnp.where(matched, 0.0, FLOW.last / parts)


def shortcut_matching(
    key: Array,
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    *,
    target: Params | None = None,
    condition: Array | None = None,
    known: Array | None = None,
    weight: Array | None = None,
    steps: int = 128,
    share: float = 0.75,
) -> tuple[Array, Metrics]:
    """Loss of shortcut models (arXiv 2410.12557, equation 5 and algorithm 1).

    The first `share` of the rows learn flow matching, `s(z, t, 0) = eps - x0`; of the others one step of
    `2 d` equals two steps of `d` by the parameters `target` (None: `params`), to which no gradient flows.
    The key is consumed.

    Args:
        condition: `[B, C]`, or None; the column of the step's size is put behind it.
        known: boolean prefix of the shape of `x0`: entries that are clean in training (see `hold_map`).
        weight: prefix of the shape of `x0`.
        steps: the finest division of the time, a power of two.

    Raises:
        ValueError: if `steps` is no power of two, or less than 2.
    """
    if steps < 2 or steps & (steps - 1):
        raise ValueError(f"shortcut_matching needs a power of two from 2 on: {steps=}")
    b, condition = x0.shape[0], _condition(condition, x0)
    count = round(share * b)
    keys = named_keys(key, "noise", "time", "step", "start")
    t, d = _draw(keys, jnp.arange(b) < count, x0.dtype, steps)
    t, between = levels_beside(known, t, x0), levels_beside(known, t - d / 2, x0)
    flow = jax.random.normal(keys["noise"], x0.shape, x0.dtype) - x0
    z = x0 + expand(t, x0) * flow

    def velocity(params: Params, z: Array, t: Array, d: Array, rows: slice = slice(None)) -> Array:
        return _velocity(params, condition[rows], z, t, d, apply=apply, steps=steps)

    goal = flow
    if count < b:
        rows, weights = slice(count, b), params if target is None else target
        first = velocity(weights, z[rows], t[rows], d[rows] / 2, rows)
        middle = z[rows] - expand(t[rows] - between[rows], z[rows]) * first
        second = velocity(weights, middle, between[rows], d[rows] / 2, rows)
        goal = goal.at[rows].set(jax.lax.stop_gradient((first + second) / 2))
    loss = squared_error(velocity(params, z, t, d) - goal, t, weight)
    return loss, {"loss": loss}
