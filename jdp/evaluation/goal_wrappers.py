"""How the families of goal tasks say what they observe, where the goal lies and whether it is reached."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from jdp.errors import UserError
from jdp.tasks import families, maze2d, maze2d_ball
from jdp.tasks.global_random import GlobalRandom
from jdp.tasks.mazes import point_maze


class Kind(NamedTuple):
    """A family of tasks as functions of what `reset` and `step` give."""

    observe: Callable[[Any], Any]  # raw observation -> vector [O]
    goal: Callable[[Any, dict, tuple[int, ...]], Any]  # (raw, info, entries) -> [G]; None: as before
    success: Callable[[dict, bool], bool]  # (info, terminated)
    place: Callable[..., tuple[Any, dict]] | None = None
    # of mazes: place(env, raw, info, start, goal) -> (raw, info), with the points that are not None


def _place_robotics(env: gym.Env, raw: Any, info: dict, start: ArrayLike | None, goal: ArrayLike | None):
    task: Any = env.unwrapped
    body = task.point_env if hasattr(task, "point_env") else task.ant_env
    if goal is not None:
        task.goal = np.asarray(goal, np.float64)
        task.update_target_site_pos()
    if start is not None:
        qpos = body.data.qpos.copy()
        qpos[:2] = start
        body.set_state(qpos, body.data.qvel.copy())
    seen = body._get_obs()
    return task._get_obs(seen[0] if isinstance(seen, tuple) else seen), info


def _place_ogbench(env: gym.Env, raw: Any, info: dict, start: ArrayLike | None, goal: ArrayLike | None):
    task: Any = env.unwrapped
    if goal is not None:
        task.set_goal(goal_xy=tuple(np.asarray(goal, np.float64)))
        info = info | {"goal": np.concatenate([np.asarray(goal, np.float64), info["goal"][2:]])}
    if start is not None:
        task.set_xy(np.asarray(start, np.float64))
    return task.get_ob(), info


def _desired(raw: Any, info: dict, entries: tuple[int, ...]) -> np.ndarray:
    return raw["desired_goal"]


def _ogbench_goal(raw: Any, info: dict, entries: tuple[int, ...]) -> np.ndarray | None:
    return info["goal"][list(entries)] if "goal" in info else None


def _no_goal(raw: Any, info: dict, entries: tuple[int, ...]) -> np.ndarray:
    return np.zeros(0)


def _says_success(info: dict, terminated: bool) -> bool:
    return bool(info["success"])


_POINT = Kind(lambda raw: raw["observation"], _desired, _says_success, _place_robotics)
_ANT = Kind(
    lambda raw: np.concatenate([raw["achieved_goal"], raw["observation"]]),
    _desired,
    _says_success,
    _place_robotics,
)
# Kitchen ends when all of its tasks are done; which ones are no entries of an observation.
_KITCHEN = Kind(lambda raw: raw["observation"], _no_goal, lambda info, terminated: terminated)
_OGBENCH = Kind(lambda raw: raw, _ogbench_goal, _says_success)
_OGBENCH_MAZE = _OGBENCH._replace(place=_place_ogbench)
_TASK = Kind(lambda raw: raw, lambda raw, info, entries: info["goal"], _says_success)
_PLAIN = Kind(lambda raw: raw, _no_goal, lambda info, terminated: False)

_KINDS = {"PointMaze_": _POINT, "AntMaze_": _ANT, "FrankaKitchen-": _KITCHEN, "jdp/": _TASK}


def kind_of(env_id: str) -> Kind:
    """The functions of the family of `env_id`."""
    for prefix, kind in _KINDS.items():
        if env_id.startswith(prefix):
            return kind
    if families.is_ogbench(env_id):
        return _OGBENCH_MAZE if env_id.partition("-")[0].endswith("maze") else _OGBENCH
    return _PLAIN


class Maze2DTask(gym.Wrapper):
    """D4RL's maze2d-*-v1 in PointMaze: a fixed goal, reward 1 within .5 of it, no end but the time limit.

    The start is drawn as in D4RL: within .1 of the point that D4RL calls a free cell's, with velocities
    from N(0, .1^2) (d4rl/pointmaze/maze_model.py). With `many` goals, Multi2D of Diffuser (arXiv
    2205.09991, 5.1), so is the goal of each episode; equal seeds give equal starts in both. Walls are D4RL's
    too, which bounce the ball 2 mm later than PointMaze's, and harder.
    """

    def __init__(self, env: gym.Env, name: str, *, many: bool = False):
        super().__init__(env)
        self._maze, self._goal, self._many = point_maze(name), maze2d.goal(name), many
        task: Any = env.unwrapped
        maze2d_ball.old_contacts(task.point_env.model)

    def _place(self, rng: np.random.Generator) -> np.ndarray:
        cell = self._maze.free_cells[rng.integers(len(self._maze.free_cells))]
        qpos = cell + rng.uniform(-maze2d.START_NOISE, maze2d.START_NOISE, 2)
        return maze2d.to_point_maze(self._maze, qpos)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self.env.reset(seed=seed)
        task: Any = self.env.unwrapped
        rng = task.np_random
        start, velocity = self._place(rng), maze2d.START_SPEED * rng.standard_normal(2)
        task.point_env.set_state(start, velocity)
        task.goal = self._place(rng) if self._many else self._goal.copy()
        task.update_target_site_pos()
        raw = task._get_obs(task.point_env._get_obs()[0])
        return raw, {"success": self._reached(raw)}

    def _reached(self, raw: dict) -> bool:
        return bool(np.linalg.norm(raw["achieved_goal"] - raw["desired_goal"]) <= maze2d.REACHED)

    def step(self, action: Any):
        raw, _, _, truncated, info = self.env.step(action)
        reached = self._reached(raw)
        return raw, float(reached), False, truncated, info | {"success": reached}


class OGBenchTask(gym.Wrapper):
    """An OGBench task whose episodes depend on the seed alone, as does which of its five tasks they are.

    Where no `task` is given, tasks take turns with the seed, so that any five seeds in a row have each once
    (OGBench scores by the mean over its tasks).

    OGBench draws tasks, places and teleports from numpy's global generator, so each environment keeps a
    state of that generator of its own and lends it for the time of a call. Its manipulation tasks also draw
    from an action space made anew, and unseeded, at each access: they get one that stays.
    """

    def __init__(self, env: gym.Env, task: str | int | None):
        super().__init__(env)
        count = getattr(env.unwrapped, "num_tasks", 0)
        single = getattr(env.unwrapped, "_reward_task_id", None) is not None
        if task is not None and single:
            raise UserError(f"task {task!r}: the environment is one single task already, so give none")
        if task is not None and task not in range(1, count + 1):
            raise UserError(f"task {task!r}: choose one of 1 to {count}, or none for all in turn")
        self._task, self._count = task, 0 if single else count
        inner: Any = env.unwrapped
        if isinstance(inspect.getattr_static(type(inner), "action_space", None), property):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the Box, on its bounds' precision
                space = inner.action_space
            kind = type(inner)
            inner.__class__ = type(kind.__name__, (kind,), {"action_space": space})
        self._random = GlobalRandom(0)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        task = self._task
        if seed is not None:
            self._random = GlobalRandom(seed)
            self.env.unwrapped.action_space.seed(seed)
            if task is None and self._count:
                task = 1 + seed % self._count
        with self._random.lent():
            return self.env.reset(
                seed=seed, options=({} if task is None else {"task_id": task}) | (options or {})
            )

    def step(self, action: Any):
        with self._random.lent():
            return self.env.step(action)
