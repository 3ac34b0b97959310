"""From a planner to a policy: plan, follow the plan for some steps, plan again."""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import Plan, Planner, Policy, PyTree, named_keys


class Following(NamedTuple):
    """What a policy that follows plans remembers, of B environments that began together."""

    planner: PyTree  # the planner's own carry
    plan: Plan
    elapsed: Array  # [] int32, steps since the plan was made


@lru_cache(maxsize=64)
def follow(planner: Planner) -> Policy:
    """The policy that plans anew every `planner.replan_every` steps and tracks its plan in between.

    All environments of a batch plan at the same steps, so a step without planning costs no sampling. The
    carry is a `Following`, whose `plan` pictures can show.
    """
    every = planner.replan_every

    def init(observation: Array) -> Following:
        carry, plan = planner.start(observation)
        return Following(carry, plan, jnp.int32(every))  # due at once

    def act(
        key: Array, state: PyTree, carry: Following, observation: Array, goal: Array
    ) -> tuple[Following, Array]:
        keys = named_keys(key, "plan", "act")

        def anew(_: None) -> tuple[PyTree, Plan, Array]:
            return *planner.plan(keys["plan"], state, carry.planner, observation, goal), jnp.int32(0)

        def keep(_: None) -> tuple[PyTree, Plan, Array]:
            return carry.planner, carry.plan, carry.elapsed

        if every == 1:
            memory, plan, elapsed = anew(None)
        else:
            memory, plan, elapsed = jax.lax.cond(carry.elapsed >= every, anew, keep, None)
        action = planner.act(keys["act"], state, plan, elapsed, observation)
        return Following(memory, plan, elapsed + 1), action

    return Policy(init, act)
