"""From plans to actions: plan, follow the plan for some steps, plan again."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jdp.learning.guides import Past, context_of, history_of, no_past, observe
from jdp.learning.inverse import Inverse
from jdp.learning.scale import Scale, clip_action
from jdp.planners.trajectory import Previous, nothing
from jdp.types import Bound, Context, Decision, Guide, Plan, Policy, PyTree, named_keys, where_rows


class Planned(NamedTuple):
    """A new plan for each of B environments."""

    memory: PyTree  # of the planner; leaves [B, ...]
    plan: Plan
    chain: Array | None = None  # [n + 1, B, T, D], standardised, where it is kept


class MakePlan(Protocol):
    """How plans are made."""

    def __call__(self, key: Array, state: PyTree, memory: PyTree, context: Context) -> Planned:
        """From the observations of `context` to its goals; the key is consumed."""
        ...


class FollowPlan(Protocol):
    """How plans become actions."""

    def __call__(self, key: Array, state: PyTree, plan: Plan, elapsed: Array, observation: Array) -> Array:
        """`[B, A]`, the action `elapsed` `[B]` steps after the plan was made, at observations `[B, O]`."""
        ...


class Planner(NamedTuple):
    """The acting half of a planner; hashable."""

    memory: tuple[int, int]  # (T, D) of `Previous`
    lengths: tuple[int, int, int]  # rows of a plan's observations, actions and subgoals
    action_dim: int
    plan: MakePlan
    act: FollowPlan
    every: int  # steps that a plan is followed
    guide: Guide | None = None  # says how much of the past is remembered for it
    chain: int = 0  # n + 1, the length of chains that are kept; 0: none are


class Following(NamedTuple):
    """What a policy that follows plans remembers, of B environments."""

    memory: Previous
    plan: Plan
    elapsed: Array  # [B] int32, steps since the plan was made
    past: Past  # of the episode
    chain: Array | None  # [B, n + 1, T, D]


def follow(planner: Planner) -> Policy:
    """The policy that plans anew every `planner.every` steps and follows its plan in between.

    Its state has a field `scale` (`jdp.learning.scale.Scale`).

    Plans are drawn for the whole batch where any row is due, and taken by the rows that are; so in
    environments that began together a step without planning costs no sampling.
    """
    settings = (("planner", planner),)
    return Policy(Bound(_begin, settings), Bound(_follow, settings))


def _begin(observation: Array, *, planner: Planner) -> Following:
    (batch, dim), (rows, actions, subgoals) = observation.shape, planner.lengths
    plan = Plan(
        jnp.zeros((batch, rows, dim)),
        jnp.zeros((batch, actions, planner.action_dim)),
        jnp.zeros(batch),
        jnp.zeros((batch, subgoals, dim)),
    )
    chain = jnp.zeros((batch, planner.chain, *planner.memory)) if planner.chain else None
    due, past = jnp.full(batch, planner.every, jnp.int32), no_past(observation, history_of(planner.guide))
    return Following(nothing(jnp.zeros((batch, *planner.memory))), plan, due, past, chain)  # due at once


def _follow(
    key: Array, state: PyTree, carry: Following, observation: Array, goal: Array, *, planner: Planner
) -> tuple[Following, Decision]:
    keys = named_keys(key, "plan", "act")
    due, past = carry.elapsed >= planner.every, observe(carry.past, observation)
    context = context_of(state.scale, past, goal, planner.guide)
    carry = carry._replace(past=past)

    def anew() -> Following:
        memory, plan, chain = planner.plan(keys["plan"], state, carry.memory, context)
        chain = None if chain is None else jnp.swapaxes(chain, 0, 1)
        return Following(memory, plan, jnp.zeros_like(carry.elapsed), past, chain)

    def where_due() -> Following:
        return where_rows(due, anew(), carry)

    carry = anew() if planner.every == 1 else jax.lax.cond(jnp.any(due), where_due, lambda: carry)
    action = planner.act(keys["act"], state, carry.plan, carry.elapsed, observation)
    chain = None if carry.chain is None else jnp.swapaxes(carry.chain, 0, 1)
    decision = Decision(action, due, carry.plan, carry.plan.value, chain)
    return carry._replace(elapsed=carry.elapsed + 1), decision


def played(key: Array, state: PyTree, plan: Plan, elapsed: Array, observation: Array) -> Array:
    """The planned action of this step; after its end the last."""
    del key, state, observation
    return _row(plan.action, jnp.minimum(elapsed, plan.action.shape[1] - 1))


def _row(x: Array, at: Array) -> Array:
    return x[jnp.arange(x.shape[0]), at]


def pursued(
    key: Array,
    state: PyTree,
    plan: Plan,
    elapsed: Array,
    observation: Array,
    *,
    inverse: Inverse,
    stride: int,
    rows: int,
) -> Array:
    """The action towards the row of the plan that lies `rows` rows on, by the weights `state.inverse`.

    After `elapsed` `[B]` steps row `elapsed // stride + rows` is aimed at, at most `rows * stride` steps
    ahead; near the end the last row, in the steps that are left of the plan, and once it is over in as many
    as at its beginning.
    """
    scale: Scale = state.scale
    row = jnp.minimum(elapsed // stride + rows, plan.observation.shape[1] - 1)
    left = row * stride - elapsed
    ahead = jnp.where(left > 0, left, rows * stride - elapsed % stride)
    here, target = scale.observation(observation), scale.observation(_row(plan.observation, row))
    return clip_action(scale.action.inverse(inverse.act(key, state.inverse, here, target, ahead)))
