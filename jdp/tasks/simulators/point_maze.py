"""gymnasium-robotics' PointMaze and D4RL's maze2d as pure functions: the ball, its walls, its goals.

The ball is a point mass on two slides (`jdp.tasks.maze2d_ball` has the constants). Away from walls a step is
a closed form. At walls it is MuJoCo's soft contact, solved here as MuJoCo does (its documentation,
"Computation"): the acceleration `a` minimises

    m / 2 |a - a0|^2 + sum_i D_i / 2 min(0, n_i . a - r_i)^2

over the contacts `i`, at most three for a ball in a cell: the walls at its side, above or below it, and at
the corner between these. `n_i` is the contact's normal, `r_i` the reference acceleration that `solref` makes
of its distance and speed, `D_i` the stiffness that `solimp` makes of its distance. The problem has two
unknowns, so that Newton's steps over sets of touching walls are closed forms.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.errors import UserError
from jdp.tasks import maze2d
from jdp.tasks.families import episode_limit
from jdp.tasks.maze2d_ball import DAMPING, GEAR, MARGIN, MASS, RADIUS, TIME_STEP, TOP_SPEED
from jdp.tasks.mazes import POINT_ENV_IDS, Maze, point_maze
from jdp.types import Bound, Spec, Stepped, Task, named_keys

REACHED = 0.45  # m, from the goal, in PointMaze; D4RL's is .5
PLACE_NOISE = 0.25  # m, half-width around a cell's centre, of starts and goals in PointMaze
_NEWTON = 4  # steps; sets of three walls settle in fewer
_TIME_CONSTANT, _DAMPING_RATIO = 0.02, 1.0  # MuJoCo's default solref
_SOFT, _HARD, _WIDTH = 0.9, 0.95, 0.001  # its default solimp: impedance at 0 and from `width` m on


class PointMazeState(NamedTuple):
    """One ball."""

    position: Array  # [2], m
    velocity: Array  # [2], m/s
    goal: Array  # [2], m


class Walls(NamedTuple):
    """How walls push back: what MuJoCo has changed since D4RL (`jdp.tasks.maze2d_ball`)."""

    margin: float = 2 * MARGIN  # m, of ball and wall together
    inverse_weight: float = 1 / MASS  # 1/kg, scales how soft a contact is


D4RL_WALLS = Walls(MARGIN, 2 / 3 / MASS)


class Grid(NamedTuple):
    """A maze as arrays: as an argument of a program, other mazes of its size compile nothing."""

    blocked: Array  # [I, J] bool, the walls
    first: Array  # [2], m, the centre (x, y) of cell (0, 0)
    step: Array  # [2], m, of x per column and of y per row


def grid_of(maze: Maze) -> Grid:
    """The arrays of `maze`."""
    first, step = (jnp.asarray(x, jnp.float32) for x in maze.frame)
    return Grid(jnp.asarray(~maze.free), first, step)


def ball_step(
    position: Array, velocity: Array, action: Array, *, grid: Grid, walls: Walls
) -> tuple[Array, Array]:
    """`(position [2], velocity [2])` after one step of .01 s under `action` `[2]` within [-1, 1].

    In a step the ball goes straight.
    """
    velocity = jnp.clip(velocity, -TOP_SPEED, TOP_SPEED)
    free = (GEAR * action - DAMPING * velocity) / MASS
    acceleration = _pushed(free, *_contacts(position, velocity, grid, walls))
    velocity = velocity + TIME_STEP * MASS * acceleration / (MASS + TIME_STEP * DAMPING)
    return position + TIME_STEP * velocity, velocity


def _beside(position: Array, grid: Grid) -> tuple[Array, Array, Array]:
    """Of the three cells that the ball is nearest to: `(side [2], gap [3, 2], walls [3] bool)`.

    `side` is that of its own cell, and `gap` the way to the nearest point of each, both per axis.
    """
    cell = jnp.round((position - grid.first) / grid.step)  # (column, row)
    away = position - (grid.first + cell * grid.step)  # from the cell's centre
    side = jnp.where(away > 0, 1.0, -1.0)  # in x and y
    corners = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # which walls: in x, in y, in both
    near = (cell[None] + corners * (side * jnp.sign(grid.step))[None]).astype(int)
    columns, rows = jnp.clip(near, 0, jnp.array(grid.blocked.shape[::-1])[None] - 1).T
    gap = corners * (jnp.abs(grid.step) / 2 - side * away)[None]
    return side, gap, grid.blocked[rows, columns]


def clearance(position: Array, grid: Grid) -> Array:
    """`[]`, m from the ball's surface at `position` `[2]` to the nearest wall of those around its cell.

    Negative where ball and wall overlap, and -1 with its centre in a wall or outside the maze; inf where no
    wall is on its side.
    """
    cell = jnp.round((position - grid.first) / grid.step).astype(int)[::-1]
    inside = jnp.all((cell >= 0) & (cell < jnp.array(grid.blocked.shape)))
    row, column = jnp.where(inside, cell, 0)
    _, gap, walls = _beside(position, grid)
    distance = jnp.where(walls, jnp.linalg.norm(gap, axis=1), jnp.inf)
    return jnp.where(inside & ~grid.blocked[row, column], jnp.min(distance) - RADIUS, -1.0)


def _contacts(position: Array, velocity: Array, grid: Grid, walls: Walls) -> tuple[Array, Array, Array]:
    """Normals `[3, 2]`, reference accelerations `[3]` and stiffnesses `[3]`, 0 where there is no contact."""
    side, gap, blocked = _beside(position, grid)
    length = jnp.linalg.norm(gap, axis=1)
    normal = -gap * side[None] / jnp.maximum(length, 1e-9)[:, None]
    distance = length - RADIUS - walls.margin  # MuJoCo's, less the margin
    depth = jnp.clip(-distance / _WIDTH, 0.0, 1.0)
    bend = jnp.where(depth < 0.5, 2 * depth**2, 1 - 2 * (1 - depth) ** 2)
    impedance = _SOFT + bend * (_HARD - _SOFT)
    stiffness = impedance / (1 - impedance) / walls.inverse_weight
    damp = 2 / (_HARD * _TIME_CONSTANT)
    pull = 1 / (_HARD * _TIME_CONSTANT * _DAMPING_RATIO) ** 2
    reference = -damp * normal @ velocity - pull * impedance * distance
    return normal, reference, jnp.where(blocked & (distance < 0), stiffness, 0.0)


def _pushed(free: Array, normal: Array, reference: Array, stiffness: Array) -> Array:
    """`[2]`, the acceleration that minimises the problem of this module's head; `free` is `a0`."""
    acceleration = free
    for _ in range(_NEWTON):
        touching = jnp.where(normal @ acceleration < reference, stiffness, 0.0)  # [3]
        a, b, c = (jnp.sum(touching * normal[:, i] * normal[:, j]) for i, j in ((0, 0), (0, 1), (1, 1)))
        right = MASS * free + (touching * reference) @ normal
        a, c = a + MASS, c + MASS
        solved = [c * right[0] - b * right[1], a * right[1] - b * right[0]]
        acceleration = jnp.stack(solved) / (a * c - b * b)
    return acceleration


class Rules(NamedTuple):
    """Where episodes begin, what is rewarded, and when they end."""

    starts: tuple[tuple[float, float], ...]  # points near which an episode begins, one of them each
    goals: tuple[tuple[float, float], ...]  # and near which its goal lies; never near the same one
    noise: float = PLACE_NOISE  # m, half-width around a point, of starts and of goals where there are many
    speed: float = 0.0  # m/s, standard deviation of the first velocity
    reached: float = REACHED  # m, from the goal: reward 1
    ends: bool = True  # whether the episode ends there


def _reset(key: Array, *, rules: Rules) -> tuple[PointMazeState, Array, Array]:
    keys = named_keys(key, "goal", "start", "noise", "speed")
    starts, goals = jnp.asarray(rules.starts), jnp.asarray(rules.goals)
    target = jax.random.randint(keys["goal"], (), 0, len(goals))
    if rules.starts == rules.goals:
        start = (target + jax.random.randint(keys["start"], (), 1, len(starts))) % len(starts)
    else:
        start = jax.random.randint(keys["start"], (), 0, len(starts))
    noise = jax.random.uniform(keys["noise"], (2, 2), minval=-rules.noise, maxval=rules.noise)
    goal = goals[target] + (noise[0] if len(goals) > 1 else 0.0)
    speed = rules.speed * jax.random.normal(keys["speed"], (2,)) if rules.speed else jnp.zeros(2)
    state = PointMazeState(starts[start] + noise[1], speed, goal)
    return state, _observed(state), goal


def _observed(state: PointMazeState) -> Array:
    return jnp.concatenate([state.position, state.velocity])


def _step(
    key: Array, state: PointMazeState, action: Array, *, maze: Maze, walls: Walls, rules: Rules
) -> tuple[PointMazeState, Stepped]:
    del key  # nothing is random
    moved = ball_step(state.position, state.velocity, action, grid=grid_of(maze), walls=walls)
    state = PointMazeState(*moved, state.goal)
    success = jnp.linalg.norm(state.position - state.goal) <= rules.reached
    ended = success if rules.ends else jnp.zeros((), bool)
    return state, Stepped(_observed(state), success.astype(jnp.float32), ended, success)


def _state_of(observation: Array, goal: Array) -> PointMazeState:
    return PointMazeState(observation[:2], observation[2:], goal)


def _task(maze: Maze, walls: Walls, rules: Rules, spec: Spec) -> Task:
    physics = (("maze", maze), ("walls", walls), ("rules", rules))
    return Task(Bound(_reset, (("rules", rules),)), Bound(_step, physics), spec, _state_of)


def _points(xy: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in xy)


def point_maze_task(name: str) -> Task:
    """PointMaze, "umaze" to "open": a random start and goal, and an episode that ends at the goal.

    Raises:
        UserError: for another name.
    """
    maze = point_maze(name)
    env_id, cells = POINT_ENV_IDS[name], _points(maze.cell_to_xy(maze.free_cells))
    spec = Spec(4, 2, env_id, episode_limit(env_id), goal=(0, 1))
    return _task(maze, Walls(), Rules(cells, cells), spec)


def maze2d_task(name: str, *, many_goals: bool = False) -> Task:
    """D4RL's maze2d, "umaze" to "large": one fixed goal, reward 1 within .5 m of it, no end, D4RL's walls.

    With `many_goals` each episode has its own (Multi2D of Diffuser), which may lie at the start.

    Raises:
        UserError: for another name.
    """
    if name not in maze2d.GOALS:
        raise UserError(f"unknown maze2d {name!r}: choose one of {', '.join(maze2d.GOALS)}")
    maze, env_id = point_maze(name), POINT_ENV_IDS[name]
    cells = _points(maze2d.to_point_maze(maze, maze.free_cells.astype(float)))
    goals = tuple(reversed(cells)) if many_goals else _points(maze2d.goal(name)[None])
    rules = Rules(cells, goals, maze2d.START_NOISE, maze2d.START_SPEED, maze2d.REACHED, ends=False)
    return _task(maze, D4RL_WALLS, rules, Spec(4, 2, env_id, episode_limit(env_id), goal=(0, 1)))
