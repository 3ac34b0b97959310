"""What the rows of a maze2d file tell, so that those of a recipe can be held against D4RL's own.

All take the columns of `jdp.data.recipes.maze2d.collect`, or the same keys of a file.
"""

from collections.abc import Mapping
from itertools import groupby

import numpy as np

from jdp.tasks import maze2d_ball
from jdp.tasks.maze2d import BODY
from jdp.tasks.maze2d_controller import Cell, route
from jdp.tasks.mazes import Maze, point_maze

Columns = Mapping[str, np.ndarray]
KEYS = (
    *("observations", "actions", "rewards", "timeouts"),
    *("infos/goal", "infos/qpos", "infos/qvel"),
)
STATISTICS = {
    "speed": "mean speed, m/s",
    "top speed": "share of the velocities that reach 5 m/s",
    "saturated": "share of the actions at -1 or 1",
    "change": "std of the change between unsaturated neighbours",
    "wall": "mean distance to the nearest wall, m",
    "touching": "share of the rows that touch a wall",
    "segment": "mean rows of a segment",
    "one row": "share of the segments of one row",
    "reward": "mean reward",
    "end": "mean distance to the pursued integer at an end, m",
}


def statistics(columns: Columns, name: str) -> dict[str, float]:
    """The ten `STATISTICS` of rows in the maze `name`; of segments, those that end within the rows."""
    velocity = columns["infos/qvel"].astype(np.float64)
    actions = columns["actions"].astype(np.float64)
    distance = wall_distance(point_maze(name), columns["infos/qpos"].astype(np.float64))
    ends = np.flatnonzero(columns["timeouts"])
    lengths = np.diff(ends, prepend=-1)
    saturated = np.abs(actions) >= 1
    inner = ~(saturated[1:] | saturated[:-1])
    missed = columns["observations"][ends, :2] - np.round(columns["infos/goal"][ends])
    found = (
        np.linalg.norm(velocity, axis=1).mean(),
        (np.abs(velocity) >= maze2d_ball.TOP_SPEED).mean(),
        saturated.mean(),
        np.diff(actions, axis=0)[inner].std(),
        distance.mean(),
        (distance < maze2d_ball.RADIUS + maze2d_ball.MARGIN).mean(),
        lengths.mean(),
        (lengths == 1).mean(),
        columns["rewards"].mean(dtype=np.float64),
        np.linalg.norm(missed, axis=1).mean(),
    )
    return dict(zip(STATISTICS, map(float, found), strict=True))


def wall_distance(maze: Maze, qpos: np.ndarray) -> np.ndarray:
    """`[N]`, how far the ball's middle at `qpos` `[N, 2]`, in a free cell, is from the nearest wall."""
    place = qpos + (0.5 + BODY)  # in cells, from the corner of the map
    cell = np.floor(place).astype(np.int64)
    low, high = (place - cell).T, (1 - (place - cell)).T
    nearest = np.full(len(qpos), np.inf)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            along0, along1 = (low[0], 0.0, high[0])[i + 1], (low[1], 0.0, high[1])[j + 1]
            wall = ~maze.free[cell[:, 0] + i, cell[:, 1] + j]
            nearest = np.where(wall, np.minimum(nearest, np.hypot(along0, along1)), nearest)
    return nearest


def step_errors(columns: Columns, name: str) -> tuple[np.ndarray, np.ndarray]:
    """`([N - 1], [N - 1])`: errors of the velocity after each row's action, m/s; whether a wall was near."""
    ball = maze2d_ball.make_ball(point_maze(name))
    states = np.concatenate([columns["infos/qpos"], columns["infos/qvel"]], axis=1).astype(np.float64)
    steps = zip(states[:-1].tolist(), columns["actions"].astype(np.float64).tolist(), strict=False)
    reached = np.array([maze2d_ball.step(ball, tuple(state), tuple(action)) for state, action in steps])
    near = np.array([maze2d_ball.near_wall(ball, q0, q1) for q0, q1 in states[:-1, :2].tolist()])
    return np.abs(reached - states[1:])[:, 2:].max(axis=1), near


def routes_followed(columns: Columns, name: str) -> tuple[int, int]:
    """In how many segments the ball visits just the cells of the planner's route, and of how many.

    Segments of a cell that is drawn again are left out, and the last one where no end is marked.
    """
    maze, ends = point_maze(name), np.flatnonzero(columns["timeouts"])
    goals = np.round(columns["infos/goal"]).astype(np.int64)
    cells = np.floor(columns["infos/qpos"] + (0.5 + BODY)).astype(np.int64)
    starts, followed, count = np.append(0, ends[:-1] + 1), 0, 0
    for first, last in zip(starts, ends, strict=True):
        goal = _cell(goals[first])
        if first and goal == _cell(goals[first - 1]):
            continue
        start = _cell(np.round(columns["observations"][first, :2]).astype(np.int64))
        visited = [cell for cell, _ in groupby(map(_cell, cells[first : last + 1]))]
        followed, count = followed + (visited == [start, *route(maze, start, goal)]), count + 1
    return followed, count


def _cell(place: np.ndarray) -> Cell:
    return int(place[0]), int(place[1])
