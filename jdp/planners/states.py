"""Plans of states alone, every `stride` steps, which an inverse model follows."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jdp.planners.inverse import Inverse, track
from jdp.planners.scale import Scale
from jdp.planners.trajectory import Previous, nothing_planned
from jdp.types import Plan, PyTree


def row_offsets(horizon: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`(offsets, at)`: the rows of a segment to learn from, and which of them are the rows of a plan.

    A segment begins with `stride + 1` consecutive steps, which the inverse model learns from
    (`jdp.planners.inverse.near_pair`); a plan has every `stride`-th step before `horizon`.
    """
    rows = range(0, horizon, stride)
    offsets = tuple(sorted({*range(stride + 1), *rows}))
    return offsets, tuple(offsets.index(step) for step in rows)


def states_plan(scale: Scale, x0: Array, value: Array) -> Plan:
    """The plan of standardised states `x0` `[B, T, O]`, in the units of the task; `value` is `[B]`."""
    batch, _, dim = x0.shape
    none = jnp.zeros((batch, 0, scale.action.mean.shape[0])), jnp.zeros((batch, 0, dim))
    return Plan(scale.observation.inverse(x0), none[0], value, none[1])


def start(rows: int, action_dim: int) -> Callable[[Array], tuple[Previous, Plan]]:
    """`Planner.start` of plans of `rows` states."""

    def begin(observation: Array) -> tuple[Previous, Plan]:
        batch, dim = observation.shape
        none = jnp.zeros((batch, 0, action_dim)), jnp.zeros((batch, 0, dim))
        plan = Plan(jnp.zeros((batch, rows, dim)), none[0], jnp.zeros(batch), none[1])
        return nothing_planned(batch, rows, dim), plan

    return begin


def pursue(control: Inverse, stride: int, rows: int = 1) -> Callable[..., Array]:
    """`Planner.act` of a planner whose state has a `scale` and the state `inverse` of `control`."""

    def act(key: Array, state: PyTree, plan: Plan, elapsed: Array, observation: Array) -> Array:
        def towards(*args: Array) -> Array:
            return control.act(key, state.inverse, *args)

        return track(towards, state.scale, plan, stride, elapsed, observation, rows)

    return act
