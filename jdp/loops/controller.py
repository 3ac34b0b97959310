"""A policy's functions as compiled programs, which whoever plays calls step after step."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.devices import distributed
from jdp.devices.mesh import gathered, split_batch
from jdp.types import Decision, Policy, PyTree


class Controller(NamedTuple):
    """A policy's two functions, compiled."""

    init: Callable[..., PyTree]
    act: Callable[..., tuple[PyTree, Decision]]  # Policy.act, told a key for all steps and then the step


def controller(policy: Policy, mesh: Mesh | None = None, many: bool = False) -> Controller:
    """The jitted functions of `policy`; equal arguments give the same ones, so they compile once.

    Over a mesh the rows (a multiple of its devices) are split, and decisions come back whole.

    Args:
        many: for S seeds at once (`seeded`).
    """
    return _controller(policy, mesh, many)


@lru_cache(maxsize=64)  # behind `controller`: the cache tells apart what is given from what is left out
def _controller(policy: Policy, mesh: Mesh | None, many: bool) -> Controller:
    policy, axis = seeded(policy) if many else policy, int(many)

    def act(key: Array, step: Array, *seen: PyTree) -> tuple[PyTree, Decision]:
        # Inside the program: outside it, folding costs more than all else that a step of the batch does here.
        return policy.act(jax.random.fold_in(key, step), *seen)

    if mesh is None:
        return Controller(jax.jit(policy.init), jax.jit(act))

    def init(observation: Array) -> PyTree:
        return remembered(policy.init(split_batch(observation, mesh, axis)))

    def split_act(key: Array, step: Array, state: PyTree, carry: PyTree, observation: Array, goal: Array):
        seen, goal = split_batch((observation, goal), mesh, axis)
        carry, decision = act(key, step, state, carry, seen, goal)
        told = split_batch((decision.action, decision.decided), mesh, axis)
        action, decided = gathered(told, mesh)
        return remembered(carry), decision._replace(action=action, decided=decided)

    def remembered(carry: PyTree) -> PyTree:
        # Where a mesh spans processes each must be able to look into it.
        return gathered(carry, mesh) if distributed.is_many() else split_batch(carry, mesh, axis)

    return Controller(jax.jit(init), jax.jit(split_act))


def begin(actor: Controller, observation: np.ndarray) -> PyTree:
    """The first carry; of a policy that remembers nothing no program is compiled for it."""
    carry = jax.eval_shape(actor.init, observation)
    return actor.init(observation) if jax.tree.leaves(carry) else carry


def seeded(policy: Policy) -> Policy:
    """`policy` for S seeds at once: states `[S, ...]`, observations `[S, n, O]`, carries `[S, n, ...]`."""

    def act(key: Array, states: PyTree, carry: PyTree, observation: Array, goal: Array):
        keys = jax.random.split(key, observation.shape[0])
        return jax.vmap(policy.act)(keys, states, carry, observation, goal)

    return Policy(jax.vmap(policy.init), act)
