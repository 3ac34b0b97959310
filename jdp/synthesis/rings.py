"""Rollouts of a world model by the policies of several agents, into a ring buffer of each."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.devices.mesh import gathered, multiple, over, replicate, split_batch
from jdp.types import Policy, PyTree, WorldModel, pack
from jdp.world_models.ring import Ring, push, ring
from jdp.world_models.rollout import Rollout, RolloutConfig, rollout, without_learner


def _refill_program(
    model: WorldModel, policy: Policy, length: int, mesh: Mesh | None = None
) -> Callable[..., Ring]:
    return _program(without_learner(model), policy, length, mesh)


@lru_cache(maxsize=32)
def _program(model: WorldModel, policy: Policy, length: int, mesh: Mesh | None) -> Callable[..., Ring]:
    def roll(key: Array, state: PyTree, agent: PyTree, observations: Array, actions: Array) -> Rollout:
        return rollout(key, model, state, policy, agent, observations, actions, length=length)

    def store(buffer: Ring, made: Rollout) -> Ring:
        rows = pack(made.transitions)
        return push(buffer, rows.reshape(-1, rows.shape[-1]), made.alive.reshape(-1))

    def refill(keys: Array, state: PyTree, agents: PyTree, rings: Ring, observations: Array, actions: Array):
        count = observations.shape[1]
        index = jnp.arange(multiple(count, mesh)) % count  # repeats some to fill up the devices
        histories = split_batch((observations[:, index], actions[:, index]), mesh, 1)
        with over(mesh):
            made = jax.vmap(roll, in_axes=(0, None, 0, 0, 0))(keys, state, agents, *histories)
        made = gathered(split_batch(made, mesh, 1), mesh)  # every device keeps the whole ring
        made = jax.tree.map(lambda x: x[:, :count], made)
        return gathered(jax.vmap(store)(rings, made), mesh)

    return jax.jit(refill, donate_argnums=3)


def empty_rings(config: RolloutConfig, agents: int, width: int) -> Ring:
    """A buffer for each of `agents` = S agents: leaves `[S, ...]`."""
    one = ring(config.capacity, width)
    return jax.tree.map(lambda x: jnp.tile(x[None], (agents, *(1,) * x.ndim)), one)


def refill(
    key: Array,
    model: WorldModel,
    state: PyTree,
    policy: Policy,
    agents: PyTree,
    rings: Ring,
    histories: tuple[np.ndarray, np.ndarray],
    config: RolloutConfig,
    mesh: Mesh | None = None,
) -> Ring:
    """`rings` of S agents with a batch of rollouts of each added; only steps that were alive are stored.

    Args:
        policy: how the agents explore (`Method.behaviour`).
        agents: states of S agents, stacked.
        rings: of `empty_rings` or an earlier call; donated.
        histories: of `branches`, with shape `(S, config.batch)`.
        mesh: over whose devices the rollouts are split; each keeps the whole rings.
    """
    program = _refill_program(model, policy, config.length, mesh)
    keys = jax.random.split(key, rings.size.shape[0])
    state, agents, rings = (replicate(x, mesh) for x in (state, agents, rings))
    return program(keys, state, agents, rings, *histories)
