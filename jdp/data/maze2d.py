"""D4RL's maze2d files as episodes of gymnasium-robotics' PointMaze (see `jdp.tasks.maze2d`).

The ball of a file is never put elsewhere: `timeouts` marks where it got its next goal. In the row after
each of them the file repeats the observation before, while the action was applied to the true state,
which `infos` holds; with the states of `infos` every row leads to the next one in the simulator.
"""

import re
from pathlib import Path

import numpy as np

from jdp.data import d4rl, names
from jdp.errors import UserError
from jdp.tasks import maze2d
from jdp.tasks.maze2d import Maze2D
from jdp.tasks.mazes import point_maze

TIME_STEP = 0.01  # seconds
JUMP = 1e-4  # a position is off by less than 1e-6 from what the next row's velocity says
NOTICE = (
    "D4RL's maze2d in PointMaze coordinates, joined where the ball goes on; D4RL scores one fixed goal: "
    "evaluate with task='maze2d'"
)


def recognise(path: Path, arrays: d4rl.Arrays, env_id: str | None, called: str) -> Maze2D | None:
    """Which maze2d set the file at `path` is; None where it is of another task.

    The name `env_id` that a user gave beats that of the dataset or file, `called`.

    Raises:
        UserError: if the file has the content of maze2d, and no name says which maze it is; or if
            `env_id` is a maze2d name and the file has not that content.
    """
    found = maze2d.parse(env_id) or maze2d.parse(called)
    widths = arrays.observations.shape[1], arrays.actions.shape[1]
    if widths != (4, 2) or len(d4rl.read_keys(path, ("infos/goal", "infos/qpos", "infos/qvel"))) < 3:
        if maze2d.parse(env_id):
            raise UserError(f"{path} is no maze2d file: those hold infos/goal, infos/qpos and infos/qvel")
        return None
    if found is None and (task := re.match(r"PointMaze_(UMaze|Medium|Large)", env_id or "")):
        found = maze2d.parse(f"maze2d-{task[1].lower()}-v1")
    if found is None and names.full_d4rl_name(called) is None:
        raise UserError(
            f"{path} looks like D4RL's maze2d, but its name does not say which maze: "
            "give env_id='maze2d-umaze-v1', 'maze2d-medium-v1' or 'maze2d-large-v1'"
        )
    return found


def in_point_maze(path: Path, arrays: d4rl.Arrays, which: Maze2D) -> d4rl.Arrays:
    """`arrays` of the file at `path` in PointMaze coordinates, cut only where the ball jumps.

    Rewards stay as they are: of the row's own state, and of the fixed goal.

    Raises:
        UserError: if the file holds other shapes, or positions in the walls of that maze.
    """
    infos = d4rl.read_keys(path, ("infos/qpos", "infos/qvel"))
    qpos, qvel = infos["infos/qpos"].astype(np.float64), infos["infos/qvel"].astype(np.float64)
    if qpos.shape != (len(arrays.rewards), 2) or qvel.shape != qpos.shape:
        raise UserError(f"{path}: infos/qpos and infos/qvel are not of shape ({len(arrays.rewards)}, 2)")
    maze = point_maze(which.maze)
    xy, velocity = maze2d.to_point_maze(maze, qpos), maze2d.turn(qvel)
    if not maze.is_free(xy).all():
        row = int(np.argmin(maze.is_free(xy)))
        raise UserError(
            f"{path}: the ball of row {row} is in a wall of maze2d-{which.maze}: is it that maze?"
        )
    moved = xy[1:] - xy[:-1] - TIME_STEP * velocity[1:]
    jumps = np.append(np.abs(moved).max(axis=1) > JUMP, True)
    return arrays._replace(
        observations=np.concatenate([xy, velocity], axis=1).astype(np.float32),
        actions=maze2d.turn(arrays.actions),
        next_observations=None,
        timeouts=jumps & ~arrays.terminals,
    )
