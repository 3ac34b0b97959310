"""D4RL's maze2d in the coordinates of gymnasium-robotics' PointMaze, and its evaluation.

The same ball in the same mazes: mass, gear, damping and time step agree. D4RL counts `qpos` from the
ball's body, which stands at (1.2, 1.2) in a world where the wall of cell (i, j) is centred on
(i + 1, j + 1); so the cell's centre is `qpos = (i - .2, j - .2)`. In PointMaze x grows with the column j,
y falls with the row i, and the middle of the map is the origin:

    x = q1 + .7 - J / 2,    y = I / 2 - .7 - q0,    (vx, vy) = (v1, -v0),    (ax, ay) = (a1, -a0)

Checked on 3 x 20,000 rows of the official files: PointMaze (mujoco 4), set to a mapped row, reaches the
mapped next row with an error below 9e-7 in 99.8 % of the rows. The others (.05 to .14 %) are those in
contact with a wall: MuJoCo has changed since, and the ball bounces 2 mm earlier, from a wall a little softer.
`jdp.tasks.maze2d_ball` says how, and makes walls what they were, in D4RL's evaluation too.
"""

import re
from typing import NamedTuple

import numpy as np

from jdp.tasks.mazes import MAZES, Maze, point_maze

BODY = 0.2  # how far `qpos` lies behind the index of a cell's centre
GOALS = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9)}  # qpos of the fixed goal
REACHED = 0.5  # reward 1 within this distance of it, also at the distance itself
START_NOISE, START_SPEED = 0.1, 0.1  # of the reset: half-width of a uniform, std of a Gaussian


def _half(maze: Maze) -> tuple[float, float]:
    height, width = maze.free.shape
    return height / 2, width / 2


def to_point_maze(maze: Maze, qpos: np.ndarray) -> np.ndarray:
    """Positions `[..., 2]` of PointMaze of D4RL's `qpos` `[..., 2]`."""
    height, width = _half(maze)
    x = qpos[..., 1] + (0.5 + BODY) - width
    y = height - (0.5 + BODY) - qpos[..., 0]
    return np.stack([x, y], axis=-1)


def turn(vectors: np.ndarray) -> np.ndarray:
    """Velocities or actions `[..., 2]` of PointMaze of D4RL's `[..., 2]`."""
    return np.stack([vectors[..., 1], -vectors[..., 0]], axis=-1)


def goal(name: str) -> np.ndarray:
    """`[2]`, the fixed goal of maze2d-`name` in PointMaze."""
    return to_point_maze(point_maze(name), np.array(GOALS[name], np.float64))


class Maze2D(NamedTuple):
    """What a name of D4RL's says."""

    maze: str  # "umaze", "medium" or "large"
    dataset: str  # as in D4RL's table, "maze2d-large-v1"


def parse(name: str | None) -> Maze2D | None:
    """The maze of a maze2d-*-v1 name or file name; None for others, maze2d-*-v0 and its mazes among them."""
    match = re.search(r"maze2d-(umaze|medium|large)(-sparse|-dense)?-v1", name or "")
    if match is None or match[1] not in MAZES:
        return None
    dense = "-dense" if match[2] == "-dense" else ""
    return Maze2D(match[1], f"maze2d-{match[1]}{dense}-v1")
