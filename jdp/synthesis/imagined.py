"""Rollouts of a world model by several agents at once, as experience."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.data import Episodes, Experience
from jdp.devices.mesh import gathered, multiple, over, replicate, split_batch
from jdp.errors import UserError
from jdp.synthesis.branches import branches, recorded
from jdp.types import Method, Policy, PyTree, Target, WorldModel
from jdp.world_models.rollout import REPLAY, Noisy, Rollout, noisy_policy, rollout, without_learner


class TrainedModel(NamedTuple):
    """A world model with what it learned."""

    model: WorldModel
    state: PyTree


def rollout_program(
    model: WorldModel, policy: Policy, length: int, mesh: Mesh | None = None
) -> Callable[..., Rollout]:
    """The jitted rollout of S agents in one model: `(keys [S], model state, agents, histories) -> [S, B, T]`.

    The weights of the model and of the agents are arguments: new ones compile nothing. Over a mesh the B
    rollouts of every agent are split over its devices.
    """
    return _rollout_program(without_learner(model), policy, length, mesh)


@lru_cache(maxsize=32)
def _rollout_program(
    model: WorldModel, policy: Policy, length: int, mesh: Mesh | None
) -> Callable[..., Rollout]:
    def run(key: Array, state: PyTree, agent: PyTree, observations: Array, actions: Array) -> Rollout:
        return rollout(key, model, state, policy, agent, observations, actions, length=length)

    def program(keys: Array, state: PyTree, agents: PyTree, observations: Array, actions: Array) -> Rollout:
        histories = split_batch((observations, actions), mesh, 1)
        with over(mesh):
            made = jax.vmap(run, in_axes=(0, None, 0, 0, 0))(keys, state, agents, *histories)
        return gathered(split_batch(made, mesh, 1), mesh)

    return jax.jit(program)


def imagine(
    key: Array,
    model: WorldModel,
    state: PyTree,
    policy: Policy,
    agents: PyTree,
    histories: tuple[np.ndarray, np.ndarray],
    *,
    length: int,
    batch: int = 1024,
    mesh: Mesh | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Experience:
    """`[S, N, T, ...]` experience of `length` = T steps, from histories `[S, N, H, O]`, `[S, N, H - 1, A]`.

    Comparable with what a trajectory diffuser generates: the last step has no successor in it, so it is
    a transition only where it is terminal. Batch `i` uses `fold_in(key, i)`.

    Args:
        policy: acts without goals, for instance `jdp.world_models.noisy_policy(method.target)`.
        agents: states of S of it, stacked. For `jdp.world_models.REPLAY` the actions `[S, N, T, A]`, with
            `batch` N, and N a multiple of the devices.
        batch: rollouts of one agent at once; over a mesh the next multiple of its devices.
        progress: called with (rollouts made, rollouts to make), of all agents.
    """
    observations, actions = histories
    seeds, count = observations.shape[:2]
    program, size = rollout_program(model, policy, length, mesh), multiple(min(batch, count), mesh)
    state, agents = replicate(state, mesh), replicate(agents, mesh)
    parts = []
    for i in range(-(-count // size)):
        index = np.arange(i * size, (i + 1) * size) % count  # the last batch is filled up: one shape
        keys = jax.random.split(jax.random.fold_in(key, i), seeds)
        made = program(keys, state, agents, observations[:, index], actions[:, index])
        parts.append(jax.tree.map(np.asarray, made))
        if progress is not None:
            progress(min((i + 1) * size, count) * seeds, count * seeds)
    made = jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :count], *parts)
    return to_experience(made)


def to_experience(made: Rollout) -> Experience:
    """A rollout `[..., T]` as generated trajectories; see `imagine`."""
    rows, valid = made.transitions, np.array(made.alive)
    terminal = (np.asarray(rows.terminal) > 0) & valid
    valid[..., -1] &= terminal[..., -1]
    return Experience(
        np.asarray(rows.observation),
        np.asarray(rows.action),
        np.asarray(rows.reward),
        terminal.astype(np.float32),
        valid,
    )


def rolled_out_experience(
    key: Array,
    models: TrainedModel,
    data: Episodes,
    method: Method | None = None,
    states: PyTree = None,
    *,
    count: int,
    length: int,
    agents: int = 1,
    action_std: float = 0.1,
    mesh: Mesh | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Experience:
    """Rollouts of the world model from states of the dataset, `[S, M, length, ...]`.

    As many as hold at least `count * (length - 1)` valid steps of each agent, so that M is `count` or more.

    Args:
        method, states: whose mean actions are played, with noise of std `action_std`: of S agents, stacked.
            Without them the dataset's own actions are played, from the states in which they were taken.
        agents: S.
        progress: called with (trajectories' worth of steps made, trajectories to make).

    Raises:
        UserError: if the model made no finite step, or the method tells no distribution of its actions.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    wanted, parts, found = count * (length - 1), [], 0
    shape, history = (agents, multiple(count, mesh)), models.model.history
    policy = REPLAY if states is None else noisy_policy(target_of(method))
    std = jnp.full(agents, action_std, jnp.float32)
    while found < wanted:  # an episode that ends early leaves room for another
        if states is None:
            histories, actions = recorded(rng, data, history, length, shape)
            acting: PyTree = jnp.asarray(actions)
        else:
            histories, acting = branches(rng, data, history, shape), Noisy(states, std)
        k = jax.random.fold_in(key, len(parts))
        made = imagine(
            k,
            models.model,
            models.state,
            policy,
            acting,
            histories,
            length=length,
            batch=shape[1],
            mesh=mesh,
        )
        if not made.valid.any(axis=(1, 2)).all():
            raise UserError(
                "the world model made no finite step: lower its learning rate, and train it again"
            )
        parts.append(made)
        found += int(made.valid.sum(axis=(1, 2)).min())
        if progress is not None:
            progress(min(found, wanted) * count * agents // wanted, count * agents)
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)


def rollouts_from_data(
    key: Array,
    models: TrainedModel,
    data: Episodes,
    method: Method,
    states: PyTree,
    *,
    count: int,
    length: int,
    action_std: float = 0.0,
    mesh: Mesh | None = None,
) -> Experience:
    """`count` rollouts for each of S agents from states of the dataset, `[S, count, length, ...]`.

    As `rolled_out_experience`, but one that its model ends early stays short, and no other takes its place.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    seeds = jax.tree.leaves(states)[0].shape[0]
    return imagine(
        key,
        models.model,
        models.state,
        noisy_policy(target_of(method)),
        Noisy(states, jnp.asarray(np.full(seeds, action_std, np.float32))),
        branches(rng, data, models.model.history, (seeds, count)),
        length=length,
        batch=count,
        mesh=mesh,
    )


def target_of(method: Method | None) -> Target:
    """The distribution of a method's actions.

    Raises:
        UserError: if it tells none.
    """
    if method is None or method.target is None:
        raise UserError("this needs a method that tells the distribution of its actions (Method.target)")
    return method.target
