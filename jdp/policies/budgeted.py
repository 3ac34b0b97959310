"""Any trained policy or planner that spends on a state what the state needs (after HBPO, arXiv 2507.15844).

The same weights draw with few steps or with many, with one candidate or with 64. Each such way to act is a
policy of its own, compiled once; in a step only those run that some row asks for.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.learning.budgets import BudgetConfig, Budgets, chances, cheapest
from jdp.types import Bound, Decision, Policy, PyTree, where_rows


class BudgetedState(NamedTuple):
    """What acts, and what chooses."""

    own: PyTree  # the state of the policies, one for all
    choice: PyTree  # of `Choose`


class Choose(Protocol):
    """Which budget a state gets."""

    def __call__(self, choice: PyTree, observation: Array, goal: Array, /) -> Array:
        """`[B]` int32, the place of a policy, at observations `[B, O]` and goals `[B, G]`."""
        ...


def _learned(choice: Budgets, observation: Array, goal: Array, *, count: int, config: BudgetConfig) -> Array:
    return cheapest(
        chances(choice, jnp.concatenate([observation, goal], axis=-1), count, config), config.slack
    )


def learned(count: int, config: BudgetConfig) -> Bound:
    """A `Choose` among `count` budgets by what `jdp.learning.budgets.learn_budgets` has learned."""
    return Bound(_learned, (("config", config), ("count", count)))


def budgeted(policies: tuple[Policy, ...], calls: tuple[int, ...], choose: Choose) -> Policy:
    """The policy that acts as `policies[i]` where `choose` says `i`; its state is a `BudgetedState`.

    Rows of a decision are those of the chosen policy, to the bit, and `Decision.steps` is its `calls` where
    it was drawn anew. In one program a policy runs for all rows or for none, so time is saved where rows of a
    batch agree, as the one row of a robot does. Chains are not kept, for they differ in length.

    Args:
        policies: of one method whose settings differ only in what drawing costs, the cheapest first; they
            remember the same.
        calls: network calls of a decision of each.

    Raises:
        UserError: if there are not as many calls as policies.
    """
    if len(policies) != len(calls) or not policies:
        raise UserError(f"{len(policies)} policies but {len(calls)} calls: give one number a policy")
    settings = (("calls", calls), ("choose", choose), ("policies", policies))
    return Policy(policies[0].init, Bound(_act, settings))


def _act(
    key: Array,
    state: BudgetedState,
    carry: PyTree,
    observation: Array,
    goal: Array,
    *,
    policies: tuple[Policy, ...],
    calls: tuple[int, ...],
    choose: Choose,
) -> tuple[PyTree, Decision]:
    chosen = choose(state.choice, observation, goal)

    def of(policy: Policy) -> tuple[PyTree, Decision]:  # rows are of one policy each, and so is their noise
        after, decision = policy.act(key, state.own, carry, observation, goal)
        return after, decision._replace(chain=None)

    found: Any = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: of(policies[0])))
    for i, policy in enumerate(policies):
        mine = chosen == i
        found = jax.lax.cond(
            jnp.any(mine),
            lambda mine=mine, policy=policy, found=found: where_rows(mine, of(policy), found),
            lambda found=found: found,
        )
    after, decision = found
    steps = jnp.where(decision.decided, jnp.asarray(calls, jnp.int32)[chosen], 0)
    return after, decision._replace(steps=steps)
