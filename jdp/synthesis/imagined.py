"""Rollouts of a world model for several agents at once: as experience, or into their ring buffers."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jdp.data import Episodes
from jdp.devices.mesh import gathered, multiple, over, replicate, split_batch
from jdp.errors import UserError
from jdp.synthesis.experience import Experience
from jdp.types import PyTree, WorldModel, pack
from jdp.world_models.ring import Ring, push, ring
from jdp.world_models.rollout import Actor, Rollout, RolloutConfig, agent_actor, rollout


@lru_cache(maxsize=32)
def rollout_program(model: WorldModel, length: int, mesh: Mesh | None = None) -> Callable[..., Rollout]:
    """The jitted rollout of S agents in one model: `(keys [S], model state, actors, histories) -> [S, B, T]`.

    The weights of the model and of the agents are arguments: new ones compile nothing. Over a mesh the B
    rollouts of every agent are split over its devices.
    """

    def run(key: Array, state: PyTree, actor: Actor, observations: Array, actions: Array) -> Rollout:
        return rollout(key, model, state, actor, observations, actions, length=length)

    def program(keys: Array, state: PyTree, actors: Actor, observations: Array, actions: Array) -> Rollout:
        histories = split_batch((observations, actions), mesh, 1)
        with over(mesh):
            made = jax.vmap(run, in_axes=(0, None, 0, 0, 0))(keys, state, actors, *histories)
        return gathered(split_batch(made, mesh, 1), mesh)

    return jax.jit(program)


def branches(
    rng: np.random.Generator, episodes: Episodes, history: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Histories that end at rows of the dataset drawn uniformly: where rollouts begin."""
    return histories_at(episodes, rng.integers(len(episodes), size=shape), history)


def histories_at(episodes: Episodes, rows: np.ndarray, history: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[..., H, O]` up to `rows` `[...]`, and the actions between them `[..., H - 1, A]`.

    A history does not cross the beginning of an episode: its first observation is repeated there, with
    actions 0.
    """
    first = episodes.starts[np.searchsorted(episodes.stops, rows, side="right")]
    index = rows[..., None] + np.arange(-history + 1, 1)
    inside = index >= first[..., None]
    index = np.maximum(index, first[..., None])
    actions = np.where(inside[..., None], episodes.actions[index], np.float32(0))
    return episodes.observations[index], actions[..., :-1, :]


def recorded(
    rng: np.random.Generator, episodes: Episodes, history: int, length: int, shape: tuple[int, ...]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Histories as those of `branches`, and the actions `[*shape, length, A]` that the dataset took next.

    From rows that have `length` steps before them, or the end of their task: after it the last action is
    repeated, for a model that does not end there.
    """
    lengths = episodes.stops - episodes.starts
    stop = np.repeat(episodes.stops, lengths)
    room = np.arange(len(episodes)) + length <= stop
    rows = np.flatnonzero(room | np.repeat(episodes.terminated, lengths))
    if not len(rows):
        raise UserError(
            f"{episodes.origin.name}: no episode has {length} steps or a terminal: choose a shorter --horizon"
        )
    rows = rows[rng.integers(len(rows), size=shape)]
    index = np.minimum(rows[..., None] + np.arange(length), stop[rows][..., None] - 1)
    return histories_at(episodes, rows, history), episodes.actions[index]


def imagine(
    key: Array,
    model: WorldModel,
    state: PyTree,
    actors: Actor,
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
        actors: of S agents: every leaf `[S, ...]`. Those that replay actions `[S, N, T, A]` need `batch` N,
            and N a multiple of the devices.
        batch: rollouts of one agent at once; over a mesh the next multiple of its devices.
        progress: called with (rollouts made, rollouts to make), of all agents.
    """
    observations, actions = histories
    agents, count = observations.shape[:2]
    program, size = rollout_program(model, length, mesh), multiple(min(batch, count), mesh)
    state, actors = replicate(state, mesh), replicate(actors, mesh)
    parts = []
    for i in range(-(-count // size)):
        index = np.arange(i * size, (i + 1) * size) % count  # the last batch is filled up: one shape
        keys = jax.random.split(jax.random.fold_in(key, i), agents)
        made = program(keys, state, actors, observations[:, index], actions[:, index])
        parts.append(jax.tree.map(np.asarray, made))
        if progress is not None:
            progress(min((i + 1) * size, count) * agents, count * agents)
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


@lru_cache(maxsize=32)
def _refill_program(
    model: WorldModel, act: Callable, length: int, mesh: Mesh | None = None
) -> Callable[..., Ring]:
    def roll(key: Array, state: PyTree, agent: PyTree, observations: Array, actions: Array) -> Rollout:
        return rollout(key, model, state, agent_actor(act, agent), observations, actions, length=length)

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
    act: Callable[[PyTree, Array], Any],
    agents: PyTree,
    rings: Ring,
    histories: tuple[np.ndarray, np.ndarray],
    config: RolloutConfig,
    mesh: Mesh | None = None,
) -> Ring:
    """`rings` of S agents with a batch of rollouts of each added; only steps that were alive are stored.

    Args:
        agents: states of S agents, stacked.
        rings: of `empty_rings` or an earlier call; donated.
        histories: of `branches`, with shape `(S, config.batch)`.
        mesh: over whose devices the rollouts are split; each keeps the whole rings.
    """
    program = _refill_program(model, act, config.length, mesh)
    keys = jax.random.split(key, rings.size.shape[0])
    state, agents, rings = (replicate(x, mesh) for x in (state, agents, rings))
    return program(keys, state, agents, rings, *histories)
