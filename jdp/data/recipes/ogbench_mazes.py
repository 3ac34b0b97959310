"""A point in OGBench's mazes that goes where the oracle points, with noise."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

import numpy as np

from jdp.data.recipes.blocks import MakeEpisode
from jdp.tasks.environments import make_env
from jdp.tasks.global_random import GlobalRandom
from jdp.tasks.mazes import Maze, maze_of, steps_to

NOISE = 0.5  # standard deviation of what is added to the direction, before it is clipped
STITCHED = 4  # cells from the start of an episode to its goal
Cell = tuple[int, int]


class _PointEnv(Protocol):
    """What is used of OGBench's environment."""

    cur_goal_xy: tuple[float, float]

    def get_xy(self) -> np.ndarray: ...
    def xy_to_ij(self, xy: np.ndarray) -> Cell: ...
    def ij_to_xy(self, ij: Cell) -> tuple[float, float]: ...
    def add_noise(self, xy: tuple[float, float]) -> tuple[float, float]: ...
    def set_goal(self, *, goal_xy: tuple[float, float]) -> None: ...
    def get_oracle_subgoal(
        self, start_xy: np.ndarray, goal_xy: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]: ...


class Row(NamedTuple):
    """One step, and what the file does not tell: where the oracle pointed, and the goal."""

    observation: np.ndarray  # [2]; after a teleport the place before it, as OGBench's environment returns it
    action: np.ndarray  # [2]
    qpos: np.ndarray  # [2], where the point is
    qvel: np.ndarray  # [2]
    direction: np.ndarray  # [2], of length 1
    goal: np.ndarray  # [2]


def opened_maze(maze: str, kind: str, steps: int) -> MakeEpisode:
    """The maker of episodes `[steps, ...]` of "navigate" or "stitch" in OGBench's maze "medium" or another.

    Raises:
        UserError: if the package is not installed.
    """
    walk = Walk(maze, kind, steps)

    def episode(seed: int, number: int) -> dict[str, np.ndarray]:
        rows = list(walk(seed, number))
        kept = {"observations": "observation", "actions": "action", "qpos": "qpos", "qvel": "qvel"}
        columns = {
            key: np.array([getattr(row, name) for row in rows], np.float32) for key, name in kept.items()
        }
        return columns | {"terminals": np.arange(steps) == steps - 1}

    return episode


class Walk:
    """Episodes of one kind in one maze."""

    def __init__(self, maze: str, kind: str, steps: int):
        name = f"pointmaze-{maze}-v0"
        self._env = make_env(name, max_episode_steps=steps, terminate_at_goal=False, disable_env_checker=True)
        self._task = cast(_PointEnv, self._env.unwrapped)
        found = maze_of(name)
        assert found is not None
        self.maze, self._kind, self._steps = found, kind, steps
        self._cells, self._vertices = cells(found.free), vertices(found)
        self._subgoals: dict[tuple[Cell, Cell], np.ndarray] = {}

    def __call__(self, seed: int, number: int) -> Iterator[Row]:
        """The rows of the episode with this number; equal arguments give equal bits."""
        rng = np.random.default_rng([seed, number])
        outside = GlobalRandom(int(rng.integers(1 << 32)))  # of teleports and of places within cells
        start = self._cells[rng.integers(len(self._cells))]
        goals = {"init_ij": start, "goal_ij": self._goal(rng, start)}
        with outside.lent():
            observation, _ = self._env.reset(seed=int(rng.integers(1 << 32)), options={"task_info": goals})
        for _ in range(self._steps):
            place, goal = self._task.get_xy(), np.array(self._task.cur_goal_xy)
            towards = self._subgoal(place, goal) - place
            direction = towards / (np.linalg.norm(towards) + 1e-6)
            action = np.clip(direction + NOISE * rng.standard_normal(2), -1, 1)
            with outside.lent():
                following, _, _, _, info = self._env.step(action)
                if info["success"] and self._kind == "navigate":
                    cell = self._vertices[rng.integers(len(self._vertices))]
                    self._task.set_goal(goal_xy=self._task.add_noise(self._task.ij_to_xy(cell)))
            yield Row(observation, action, info["prev_qpos"], info["prev_qvel"], direction, goal)
            observation = following

    def _goal(self, rng: np.random.Generator, start: Cell) -> Cell:
        found = self._vertices if self._kind == "navigate" else stitched(self.maze, start)
        return found[rng.integers(len(found))]

    def _subgoal(self, place: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The oracle's, which depends on the two cells alone."""
        between = self._task.xy_to_ij(place), self._task.xy_to_ij(goal)
        if between not in self._subgoals:
            self._subgoals[between] = self._task.get_oracle_subgoal(place, goal)[0]
        return self._subgoals[between]


def vertices(maze: Maze) -> list[Cell]:
    """The free cells that are no corridor: one that has its two free neighbours on opposite sides."""
    free = maze.free

    def corridor(i: int, j: int) -> bool:
        rows, columns = (free[i - 1, j], free[i + 1, j]), (free[i, j - 1], free[i, j + 1])
        return (all(rows) and not any(columns)) or (all(columns) and not any(rows))

    return [cell for cell in cells(free) if not corridor(*cell)]


def stitched(maze: Maze, start: Cell) -> list[Cell]:
    """The cells 4 steps away; the start itself where there is none."""
    return cells(steps_to(maze, start) == STITCHED) or [start]


def cells(where: np.ndarray) -> list[Cell]:
    """The cells of `where` `[I, J]`, row by row."""
    return [(i, j) for i, j in np.argwhere(where).tolist()]
