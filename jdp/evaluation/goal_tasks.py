"""Tasks with goals behind one small interface: flat observations, goals beside them, success said."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from jdp.errors import UserError
from jdp.evaluation import goal_wrappers
from jdp.tasks import families, maze2d, mazes
from jdp.tasks.environments import Task, action_box, described, make_env
from jdp.types import Spec

MAZE2D = ("maze2d", "multi2d")  # D4RL's rules in PointMaze: one goal, and one for each episode


class Step(NamedTuple):
    """What a step of one environment leads to."""

    observation: np.ndarray  # [O] float32
    goal: np.ndarray  # [G] float32; of what comes next
    reward: float
    terminated: bool
    truncated: bool
    success: bool  # whether the goal is reached now; False in tasks without goals


class GoalEnv:
    """One environment. Observations are laid out as in the datasets; make one with `make_goal_env`."""

    def __init__(self, env: gym.Env, env_id: str, kind: goal_wrappers.Kind, maze: mazes.Maze | None = None):
        self.env, self.env_id, self._kind, self.maze = env, env_id, kind, maze
        first, info = env.reset(seed=0)
        self._box = _action_box(env, env_id)
        self.observation_dim = len(_vector(kind.observe(first), env_id))
        self.action_dim = self._box.shape[0]
        self.entries = families.goal_entries(env_id, self.observation_dim)
        self._goal = self._goal_of(first, info)
        self.kept: list[GoalEnv] | None = None  # where it waits for its next use, if it is not to be closed

    @property
    def goal_dim(self) -> int:
        """G, 0 in tasks without goals."""
        return len(self.entries)

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit; None where there is none."""
        return self.env.spec.max_episode_steps if self.env.spec is not None else None

    def _goal_of(self, raw: Any, info: dict) -> np.ndarray:
        goal = self._kind.goal(raw, info, self.entries)
        return self._goal if goal is None else np.asarray(goal, np.float32)

    def reset(
        self, seed: int, *, start: ArrayLike | None = None, goal: ArrayLike | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`(observation [O], goal [G])` of a new episode; equal seeds give equal episodes.

        Args:
            start, goal: points (x, y) of a maze, instead of those drawn.

        Raises:
            UserError: if a point is in a wall or outside the maze, or the task is no maze.
        """
        for name, point in (("start", start), ("goal", goal)):
            if point is not None:
                self._check_place(point, name)
        raw, info = self.env.reset(seed=seed)
        if self._kind.place is not None and (start is not None or goal is not None):
            raw, info = self._kind.place(self.env, raw, info, start, goal)
        self._goal = self._goal_of(raw, info)
        return _vector(self._kind.observe(raw), self.env_id), self._goal

    def _check_place(self, point: ArrayLike, name: str) -> None:
        if self.maze is None:
            raise UserError(f"{self.env_id} takes no {name}: jdp knows no maze of it")
        radius = self.maze.scale / 10 if name == "start" else 0.0
        mazes.check_place(self.maze, point, f"the {name}", radius)

    def step(self, action: ArrayLike) -> Step:
        """One step with `action` `[A]`, clipped to the task's bounds."""
        clipped = np.clip(action, self._box.low, self._box.high).astype(self._box.dtype)
        raw, reward, terminated, truncated, info = self.env.step(clipped)
        self._goal = self._goal_of(raw, info)
        return Step(
            _vector(self._kind.observe(raw), self.env_id),
            self._goal,
            float(reward),
            bool(terminated),
            bool(truncated),
            self._kind.success(info, bool(terminated)),
        )

    def render(self) -> Any:
        """What the task draws; needs `render_mode`."""
        return self.env.render()

    def close(self) -> None:
        """Frees what it holds, or keeps it for the next one who asks (`environment_maker`)."""
        if self.kept is None:
            self.env.close()
        elif self not in self.kept:
            self.kept.append(self)


def make_goal_env(
    env_id: Task,
    *,
    task: str | int | None = None,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    **settings: Any,
) -> GoalEnv:
    """The task `env_id`, or that of a dataset's `Spec`, as a `GoalEnv`.

    PointMaze and AntMaze (an episode ends at success, unless `continuing_task=True`), FrankaKitchen,
    OGBench's tasks by the name of the task or of a dataset, and any other Gymnasium task with vectors as
    observations, which has no goals. AntMaze's observations begin with the position, as in D4RL.

    Args:
        task: "maze2d" in PointMaze: D4RL's evaluation of the maze2d sets, with one fixed goal, reward 1
            within .5 of it and no end but the time limit; "maze2d-large-v1" as `env_id` means the same.
            "multi2d" there: the same with a goal drawn at each reset.
            In OGBench 1 to 5, one of its tasks; without it they take turns with the seed. Its single tasks
            ("cube-single-play-singletask-task2-v0") take none, and have no goals.
        max_episode_steps: replaces the task's own time limit.
        settings: of the task, for instance `tasks_to_complete` of FrankaKitchen.

    Raises:
        UserError: if there is no such task, or what it needs is not installed.
    """
    spec = env_id if isinstance(env_id, Spec) else Spec(0, 0, env_id)
    if (old := maze2d.parse(spec.env_id)) is not None:
        spec, task = replace(spec, env_id=mazes.POINT_ENV_IDS[old.maze]), task or "maze2d"
    name = spec.env_id or ""
    if name.startswith("visual-"):
        raise UserError(f"observations of {name} are pictures; jdp takes vectors")
    maze = re.match(r"PointMaze_(UMaze|Medium|Large)-", name)
    if task in MAZE2D and not maze:
        raise UserError(f"task {task!r} is for PointMaze_UMaze-v3, _Medium-v3 and _Large-v3, not {name}")
    if task is not None and task not in MAZE2D and not families.is_ogbench(name):
        known = "'maze2d' or 'multi2d' in PointMaze, 1 to 5 in OGBench"
        raise UserError(f"{name} has no task {task!r}: choose {known}")
    if name.startswith(("PointMaze_", "AntMaze_")) and spec.env_spec is None:
        settings = {"continuing_task": task in MAZE2D} | settings
    env = make_env(spec, max_episode_steps=max_episode_steps, render_mode=render_mode, **settings)
    if task in MAZE2D and maze:
        env = goal_wrappers.Maze2DTask(env, maze[1].lower(), many=task == "multi2d")
    elif families.is_ogbench(name):
        env = goal_wrappers.OGBenchTask(env, task)
    return GoalEnv(env, name, goal_wrappers.kind_of(name), mazes.maze_of(spec))


def task_spec(env_id: str, *, max_episode_steps: int | None = None) -> Spec:
    """What a Gymnasium task says of itself, for methods that learn in it without a dataset.

    Raises:
        UserError: as `make_goal_env`.
    """
    env = make_goal_env(env_id, max_episode_steps=max_episode_steps)
    box = action_box(env_id)
    low, high = (None, None) if box is None else box
    spec = Spec(
        env.observation_dim, env.action_dim, env_id, env.max_episode_steps, None, env.entries, low, high
    )
    env.close()
    return spec


def protocol(spec: Spec) -> str | None:
    """The `task` of `make_goal_env` on whose returns `spec.score_range` is: "maze2d", or None."""
    if spec.env_spec is not None or not (spec.env_id or "").startswith("PointMaze_"):
        return None
    return "maze2d" if spec.score_range is not None else None


def environment_maker(spec: Spec, *, many_goals: bool = False) -> Callable[[], GoalEnv]:
    """Makes environments of a dataset's task, for `jdp.loops.play`.

    Of tasks that are slow to make (`families.is_slow_to_make`) those that were closed are used again: in them
    an episode depends on its seed alone. So evaluations of one run share one maker. Tasks that a dataset
    describes with wrappers are made anew, as a wrapper may remember earlier episodes.

    Args:
        many_goals: of a maze2d set, whose goal is one: draw one for each episode (Multi2D).

    Raises:
        UserError: if the task has no goals.
    """
    task = protocol(spec)
    if many_goals and task is None and not spec.goal:
        raise UserError(f"{spec.env_id} has no goals to draw")
    if many_goals and task is not None:
        task = "multi2d"
    kept: list[GoalEnv] | None = None
    if families.is_slow_to_make(spec.env_id or ""):
        found = described(spec)
        kept = None if found is not None and found.additional_wrappers else []

    def make() -> GoalEnv:
        if kept:
            return kept.pop()
        env = make_goal_env(spec, task=task)
        env.kept = kept
        return env

    return make


def _action_box(env: gym.Env, env_id: str) -> gym.spaces.Box:
    if not isinstance(env.action_space, gym.spaces.Box) or len(env.action_space.shape) != 1:
        raise UserError(f"actions of {env_id} are not vectors of numbers but {env.action_space}")
    return env.action_space


def _vector(observation: Any, env_id: str) -> np.ndarray:
    if not isinstance(observation, np.ndarray) or observation.ndim != 1:
        raise UserError(f"observations of {env_id} are not vectors of numbers, and jdp knows no goal in them")
    return observation.astype(np.float32)
