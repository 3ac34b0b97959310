"""The ball of PointMaze whose actions are held for some steps, in a maze that is an argument; and an expert.

The expert walks the shortest way through cells (`jdp.tasks.random_mazes.ways`) and is kicked now and then, so
that what learns from it sees how to recover; where it was kicked, or near a wall, is marked.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.maze2d_ball import DAMPING, GEAR, MASS, TIME_STEP, TOP_SPEED
from jdp.tasks.scenes.point import steer
from jdp.tasks.simulators.point_maze import Grid, Walls, ball_step, clearance
from jdp.types import named_keys

HOLD = 4  # steps of .01 s for which an action is held
# m. In a step the ball goes straight, .074 m at most (at its top speed on both axes, and one push more). With
# both ends .11 m or more from a corner, all of it is .1036 m away, more than the ball's radius: what is free
# after every step is so between steps.
KEPT = 0.01
# Of a velocity and of an action, what makes up the velocity after HOLD steps away from walls.
_ONE = 1 - TIME_STEP * DAMPING / (MASS + TIME_STEP * DAMPING)
KEEPS = _ONE**HOLD
PUSHES = (1 - KEEPS) * GEAR / DAMPING
SPEED, NEAR, GAIN = 2.5, 6.0, 0.3  # the expert's: m/s, 1/s, and actions per m/s
_KICK, _KICKED = 1.5, 0.02  # m/s on each axis, standard deviation; the chance of one in a held action
_ARRIVED, _LEAVES = 0.1, 0.05  # m from its goal the expert waits; the chance in a held action that it goes on


def move(grid: Grid, state: Array, action: Array) -> tuple[Array, Array]:
    """The ball's state `[4]` after `HOLD` steps of one action `[2]`, and whether it kept off all walls.

    By `KEPT`, which is enough for the way between two steps.
    """

    def step(state: Array, _: None) -> tuple[Array, Array]:
        position, velocity = ball_step(state[:2], state[2:], action, grid=grid, walls=Walls())
        return jnp.concatenate([position, velocity]), free(grid, position)

    state, kept = jax.lax.scan(step, state, None, length=HOLD)
    return state, jnp.all(kept)


def free(grid: Grid, state: Array) -> Array:
    """`[]` bool, whether the ball is `KEPT` away from all walls at `state` `[2]` or `[4]`."""
    return clearance(state[:2], grid) >= KEPT


def towards(state: Array, target: Array) -> Array:
    """`[2]`, the expert's action at `state` `[4]` towards `target` `[2]`, were there no wall between."""
    return steer(state[:2], state[2:], target, SPEED, near=NEAR, gain=GAIN)


def position(state: Array) -> Array:
    """`[..., 2]` of states `[..., 4]`."""
    return state[..., :2]


def sample(key: Array, grid: Grid) -> Array:
    """`[2]`, anywhere on the map, in walls too; the key is consumed."""
    rows, columns = grid.blocked.shape
    drawn = jax.random.uniform(key, (2,)) * jnp.array([columns, rows], jnp.float32) - 0.5
    return grid.first + drawn * grid.step


def local_map(grid: Grid, at: Array, cells: int) -> tuple[Array, Array]:
    """`(walls [cells, cells], offset [2])` around the cell of `at` `[2]`, and where in that cell it lies.

    Rows and columns are those of the maze, outside of which all is wall; offsets are in cells, x and y.
    """
    place = (at - grid.first) / grid.step
    cell = jnp.round(place).astype(int)  # (column, row)
    wide = jnp.pad(grid.blocked, cells // 2, constant_values=True).astype(jnp.float32)
    return jax.lax.dynamic_slice(wide, (cell[1], cell[0]), (cells, cells)), place - jnp.round(place)


class Walks(NamedTuple):
    """T held actions of W experts in each of N mazes."""

    state: Array  # [N, W, T, 4], before each action
    action: Array  # [N, W, T, 2]
    free: Array  # [N, W, T] bool, whether the ball kept off all walls before and while it was done
    kicked: Array  # [N, W, T] bool, whether a kick came just before the state: nothing leads there
    left: Array  # [N, W, T] bool, whether another goal is chosen after it


def _walk(key: Array, grid: Grid, cells: Array, steps: Array, length: int) -> Walks:
    """One expert's, leaves `[T, ...]`."""
    keys = named_keys(key, "start", "goal", "walk")

    def centre(cell: Array) -> Array:
        return grid.first + cell[::-1].astype(jnp.float32) * grid.step

    def aim(position: Array, goal: Array) -> Array:
        cell = jnp.round((position - grid.first) / grid.step).astype(int)[::-1]
        beside = cell[None] + jnp.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
        return centre(beside[jnp.argmin(steps[goal][beside[:, 0], beside[:, 1]])])

    def step(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], Walks]:
        (state, goal), drawn = carry, named_keys(key, "kicks", "kick", "goal", "leave")
        kicked = jax.random.bernoulli(drawn["kicks"], _KICKED)
        kick = _KICK * jax.random.normal(drawn["kick"], (2,)) * kicked.astype(jnp.float32)
        velocity = jnp.clip(state[2:] + kick, -TOP_SPEED, TOP_SPEED)
        state = jnp.concatenate([state[:2], velocity])
        action = towards(state, aim(state[:2], goal))
        after, kept = move(grid, state, action)
        there = jnp.linalg.norm(after[:2] - centre(cells[goal])) < _ARRIVED
        left = there & jax.random.bernoulli(drawn["leave"], _LEAVES)
        other = jax.random.randint(drawn["goal"], (), 0, len(cells))
        seen = Walks(state, action, kept & free(grid, state), kicked, left)
        return (after, jnp.where(left, other, goal)), seen

    start, goal = (jax.random.randint(keys[name], (), 0, len(cells)) for name in ("start", "goal"))
    begun = (jnp.concatenate([centre(cells[start]), jnp.zeros(2)]), goal)
    return jax.lax.scan(step, begun, jax.random.split(keys["walk"], length))[1]


def walks(key: Array, grids: Grid, cells: Array, steps: Array, walkers: int, length: int) -> Walks:
    """`walkers` experts in each of N mazes, for `length` held actions from random cell to random cell.

    `cells` and `steps` are those of `ways`. The key is consumed.
    """

    def one(key: Array, grid: Grid, cells: Array, steps: Array) -> Walks:
        return jax.vmap(lambda key: _walk(key, grid, cells, steps, length))(jax.random.split(key, walkers))

    return jax.vmap(one)(jax.random.split(key, cells.shape[0]), grids, cells, steps)
