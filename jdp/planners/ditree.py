"""DiTree (arXiv 2508.21001): trees whose edges a diffusion draws that sees the walls around, in unseen mazes.

The diffusion clones pieces of an expert's walks through random mazes (`jdp.tasks.held_ball`), given the
velocity, the way to a place, and a map of what is near; it knows nothing of where in the maze it is, so one
training serves any maze. The tree (`jdp.planners.tree`) checks what it draws.

It plans for a ball of PointMaze whose maze is told, and no `Spec` tells a maze: so it is none of the planners
that are registered. Against the paper: a residual MLP sees the map, one cell of it an entry; what is seen is
the present alone; actions are held for .04 s and drawn as the velocities that they lead to; the expert is a
controller that knows the way. Longer than other files, for here are its data too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm
from jdp.errors import UserError, check_settings
from jdp.learning import averaged, optimiser
from jdp.learning.averaged import Averaged
from jdp.learning.vector_diffusion import VectorDiffusionConfig
from jdp.networks.conditional_mlp import conditioned
from jdp.planners.tree import System
from jdp.tasks import held_ball
from jdp.tasks.held_ball import Walks
from jdp.tasks.simulators.point_maze import REACHED, Grid
from jdp.types import Metrics, Params, bind, named_keys

_NEAREST = 0.05  # m, below which a way has no direction
_SPEED = 2.0  # m/s, of a velocity of 1 as the network sees it
_FAR = 4.0  # m, of a way that counts as long


@dataclass(frozen=True)
class EdgeConfig(VectorDiffusionConfig):
    """A diffusion of the actions of an edge's next piece."""

    horizon: int = 16
    """T, actions that are drawn, of which a tree does the first ones."""
    cells: int = 5
    """Cells of the maze that the local map shows on a side, an odd number: the ball is in the middle one."""
    features: int = 256
    """Width of the denoiser."""
    blocks: int = 2
    """Residual blocks of two layers."""
    learning_rate: float = 5e-3
    """The peak of Adam's."""
    steps: int = 3000
    """Updates over which the learning rate warms up and falls to 0 by a cosine."""
    batch_size: int = 256
    """Pieces in a batch."""
    ema: float = 0.99
    """Decay of the averaged weights, per update."""
    sampling_steps: int = 4
    """Steps of the sampler."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            type(self).__name__,
            horizon=(self.horizon, 1, 1000),
            cells=(self.cells, 1, 999),
        )


class Pieces(NamedTuple):
    """What is learned from: walks in N mazes, and the K places where a clean piece begins."""

    walks: Walks  # leaves [N, W, T, ...]
    end: Array  # [N, W, T] int32, the last action on the way to the goal that is pursued then
    grid: Grid  # leaves [N, ...]
    rows: Array  # [K, 3] int32, maze, walker, step


class EdgeState(NamedTuple):
    """Weights, and the standard deviation of how much a velocity changes in a piece, in m/s."""

    training: Averaged
    std: Array  # []


def system() -> System:
    """The ball of PointMaze, whose worlds are `Grid`s; an action is held for .04 s."""
    return System(held_ball.move, held_ball.free, held_ball.position, held_ball.sample, REACHED)


def seen(grid: Grid, state: Array, target: Array, config: EdgeConfig) -> Array:
    """`[C]`, what the network is shown at `state` `[4]` on its way to `target` `[2]`."""
    way = target - state[:2]
    length = jnp.linalg.norm(way)
    told = jnp.append(way / jnp.maximum(length, _NEAREST), jnp.minimum(length / _FAR, 1.0))
    walls, offset = held_ball.local_map(grid, state[:2], config.cells)
    return jnp.concatenate([walls.reshape(-1), 2 * offset, state[2:] / _SPEED, told])


def pieces(walks: Walks, grid: Grid, horizon: int) -> Pieces:
    """Where `horizon` actions were done without a kick or a wall, on the way to one goal; numpy, once.

    Raises:
        UserError: if there is no such place.
    """
    free, kicked, left = (np.asarray(x) for x in (walks.free, walks.kicked, walks.left))
    length = free.shape[-1]
    step = np.arange(length)
    ends = np.where(left, step, length - 1)
    end = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    clean = np.zeros(free.shape, bool)
    count = length - horizon + 1
    if count > 0:
        windows = np.lib.stride_tricks.sliding_window_view
        whole = windows(free, horizon, axis=-1).all(-1)
        alone = ~windows(kicked, horizon, axis=-1)[..., 1:].any(-1)
        clean[..., :count] = whole & alone & (end[..., :count] >= step[:count] + horizon - 1)
    rows = np.argwhere(clean)
    if not len(rows):
        raise UserError(f"no walk has {horizon} actions without a kick or a wall: make longer walks")
    return Pieces(walks, jnp.asarray(end), grid, jnp.asarray(rows, jnp.int32))


class Batch(NamedTuple):
    """B pieces."""

    seen: Array  # [B, C]
    change: Array  # [B, T, 2], of the velocity since the piece began, in m/s


def draw(key: Array, data: Pieces, *, config: EdgeConfig) -> Batch:
    """Pieces, each on its way to a later place of its own walk, in hindsight; the key is consumed.

    Parts of shortest ways are shortest ways, so any later place until the goal will do.
    """
    keys = named_keys(key, "rows", "targets")
    rows = data.rows[jax.random.randint(keys["rows"], (config.batch_size,), 0, len(data.rows))]
    share = jax.random.uniform(keys["targets"], (config.batch_size,))

    def one(row: Array, share: Array) -> Batch:
        maze, walker, step = row
        state, action = (x[maze, walker] for x in (data.walks.state, data.walks.action))
        first, last = step + config.horizon - 1, data.end[maze, walker, step]
        later = first + jnp.round(share * (last - first).astype(jnp.float32)).astype(jnp.int32)
        grid = jax.tree.map(lambda x: x[maze], data.grid)
        shown = seen(grid, state[step], state[later, :2], config)
        done = jax.lax.dynamic_slice_in_dim(action, step, config.horizon)
        velocity = state[step, 2:]
        return Batch(shown, velocities(velocity[None], done[None])[0] - velocity[None])

    return jax.vmap(one)(rows, share)


def velocities(velocity: Array, action: Array) -> Array:
    """`[B, T, 2]`, where actions `[B, T, 2]` lead from velocities `[B, 2]`, were there no wall.

    The network draws actions as these: an affine change of coordinates, in which errors do not add up.
    """

    def step(velocity: Array, action: Array) -> tuple[Array, Array]:
        velocity = held_ball.KEEPS * velocity + held_ball.PUSHES * action
        return velocity, velocity

    return jax.lax.scan(step, velocity, action.swapaxes(0, 1))[1].swapaxes(0, 1)


def actions(velocity: Array, wanted: Array) -> Array:
    """The inverse of `velocities`: `[B, T, 2]`, within [-1, 1] where that can be."""
    before = jnp.concatenate([velocity[:, None], wanted[:, :-1]], axis=1)
    return (wanted - held_ball.KEEPS * before) / held_ball.PUSHES


def first_state(key: Array, data: Pieces, config: EdgeConfig) -> EdgeState:
    """What training begins with; the key is consumed."""
    keys = named_keys(key, "draw", "init")
    batch = draw(keys["draw"], data, config=config)
    x = batch.change.reshape(len(batch.change), -1)
    params = config.network().init(keys["init"], x[:1], jnp.zeros(1), batch.seen[:1])
    return EdgeState(averaged.begin(optimiser.adam(config), params), jnp.std(x))


def update(key: Array, state: EdgeState, batch: Batch, *, config: EdgeConfig) -> tuple[EdgeState, Metrics]:
    """A step of Adam on EDM's loss; the key is consumed."""
    x0 = batch.change.reshape(len(batch.change), -1) / state.std
    apply = conditioned(config.network().apply)

    def loss(params: Params) -> tuple[Array, Metrics]:
        both, levels = (params, batch.seen), {"p_mean": config.p_mean, "p_std": config.p_std}
        return losses.denoising(key, apply, both, x0, **levels)

    training, metrics = averaged.descend(optimiser.adam(config), state.training, loss, config.ema)
    return EdgeState(training, state.std), metrics


def _proposed(
    params: Params, std: Array, key: Array, grid: Grid, state: Array, target: Array, *, config: EdgeConfig
) -> Array:
    shown = jax.vmap(lambda g, s, t: seen(g, s, t, config))(grid, state, target)
    denoiser = edm(conditioned(config.network().apply), (params, shown))
    drawn = config.sampling().draw(key, denoiser, (len(state), config.horizon * 2))
    wanted = state[:, None, 2:] + std * drawn.reshape(len(state), config.horizon, 2)
    return jnp.clip(actions(state[:, 2:], wanted), -1.0, 1.0)


def proposer(state: EdgeState, config: EdgeConfig) -> Partial:
    """The trained diffusion as a `jdp.planners.tree.Proposer`; other weights compile nothing."""
    return bind(_proposed, state.training.ema, state.std, config=config)
