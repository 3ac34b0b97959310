"""What a high level may ask of a low one, and who has the last word (after CTHA, arXiv 2601.10738).

CTHA bounds what each level of a hierarchy of language models may decide, and lets an arbiter join their
decisions. What is left of it between planners and controllers is a contract: subgoals lie where they can be
reached in time, plans give way to something simple where they do not hold, and a plan ends where its subgoal
is reached (GMAH, arXiv 2408.11416).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.planners.following import Following
from jdp.types import Bound, Decision, Policy, PyTree, where_rows


def within_ball(here: Array, subgoal: Array, reach: Array | float) -> Array:
    """`[..., D]`, the nearest to `subgoal` of the points at most `reach` `[...]` from `here`, as they."""
    way = subgoal - here
    far = jnp.linalg.norm(way, axis=-1, keepdims=True)
    reach = jnp.broadcast_to(jnp.asarray(reach, way.dtype), way.shape[:-1])[..., None]
    return here + way * jnp.minimum(1.0, reach / jnp.maximum(far, 1e-12))


def in_turn(here: Array, subgoals: Array, reach: Array | float) -> Array:
    """`[B, K, D]`, `subgoals`, each within `reach` of the one before, the first of `here` `[B, D]`."""

    def one(before: Array, subgoal: Array) -> tuple[Array, Array]:
        found = within_ball(before, subgoal, reach)
        return found, found

    return jnp.swapaxes(jax.lax.scan(one, here, jnp.swapaxes(subgoals, 0, 1))[1], 0, 1)


def reachable_box(
    step: Callable[[PyTree, Array], PyTree], state: PyTree, actions: int, steps: int
) -> tuple[PyTree, PyTree]:
    """The states after `steps` steps of the least and of the greatest action: `(low, high)`, as `state`.

    Where no entry falls when an action rises, and each is moved by an action of its own (points that are
    pushed are so), these are the corners of what can be reached: `jnp.clip` projects onto them, and every
    place between is reached by a constant action.

    Args:
        step: `(state, action [actions]) -> state`.
    """

    def after(action: float) -> PyTree:
        pushed = jnp.full(actions, action)
        return jax.lax.fori_loop(0, steps, lambda _, now: step(now, pushed), state)

    return after(-1.0), after(1.0)


def arbitrate(
    plan: PyTree, fallback: PyTree, *, feasible: Array, value: Array, fallback_value: Array
) -> tuple[PyTree, Array]:
    """`(chosen, planned [B] bool)`: the plan where it is feasible and worth no less than the fallback.

    Leaves of `plan` and `fallback` are `[B, ...]`, the others `[B]`. A value that is not finite never wins.
    """
    planned = feasible & jnp.isfinite(value) & (value >= fallback_value)
    return where_rows(planned, plan, fallback), planned


_DUE = 1 << 30  # steps since a plan was made, after which any planner plans anew


def on_arrival(policy: Policy, entries: tuple[int, ...], reach: float, *, subgoal: int = 1) -> Policy:
    """A planner's policy that plans anew by the clock, and where the plan's subgoal is reached.

    Args:
        policy: of `jdp.planners.following.follow`, of a planner with subgoals.
        entries: of the observation that a subgoal is compared in.
        reach: how near counts, in the units of the task.
        subgoal: which row of `Plan.subgoal`; row 0 is where the plan began.

    Raises:
        UserError: when it acts, if plans have no such subgoal.
    """
    settings = (("entries", entries), ("policy", policy), ("reach", reach), ("subgoal", subgoal))
    return Policy(policy.init, Bound(_act, settings))


def _act(
    key: Array,
    state: PyTree,
    carry: Following,
    observation: Array,
    goal: Array,
    *,
    policy: Policy,
    entries: tuple[int, ...],
    reach: float,
    subgoal: int,
) -> tuple[Following, Decision]:
    subgoals = carry.plan.subgoal
    if subgoals.shape[1] <= subgoal:
        raise UserError(f"plans have {subgoals.shape[1]} subgoals: row {subgoal} is none of them")
    at = jnp.array(entries)
    away = jnp.linalg.norm(observation[:, at] - subgoals[:, subgoal, at], axis=-1)
    elapsed = jnp.where(away <= reach, _DUE, carry.elapsed)
    return policy.act(key, state, carry._replace(elapsed=elapsed), observation, goal)
