"""Rollouts of a waypoint controller in PointMaze, in the manner of D4RL's maze2d (arXiv 2004.07219, 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jdp.errors import UserError
from jdp.tasks.families import register
from jdp.tasks.maze2d_controller import D_GAIN, P_GAIN
from jdp.tasks.mazes import POINT_ENV_IDS, Maze, point_maze
from jdp.types import Transition

ARRIVED = 0.1  # a waypoint or goal counts as reached within this distance
REWARDED = 0.45  # PointMaze's own
PLACE_NOISE = 0.25  # half-width around a cell's centre, as in PointMaze


@dataclass(frozen=True)
class Collection:
    """One collection: the ball goes from random goal to random goal without a reset within an episode."""

    maze: str = "large"
    steps: int = 100_000
    episode_steps: int = 1000
    """Then comes a reset at a random free place, marked as a timeout."""
    noise: float = 0.5
    """Standard deviation of what is added to an action, before it is clipped."""
    seed: int = 0


class Route(NamedTuple):
    """The way to a goal; the last waypoint is the goal."""

    waypoints: np.ndarray  # [K, 2]
    index: int = 0  # of the current one

    @property
    def goal(self) -> np.ndarray:
        """`[2]`"""
        return self.waypoints[-1]


def steer(xy: np.ndarray, velocity: np.ndarray, waypoint: np.ndarray) -> np.ndarray:
    """`[2]`, the PD controller's action within [-1, 1] at `xy` `[2]` with `velocity` `[2]`."""
    return np.clip(P_GAIN * (waypoint - xy) + D_GAIN * velocity, -1.0, 1.0)


def advance(route: Route, xy: np.ndarray) -> Route:
    """`route` with the next waypoint, where `xy` `[2]` has reached the current one."""
    last = len(route.waypoints) - 1
    if route.index < last and np.linalg.norm(xy - route.waypoints[route.index]) < ARRIVED:
        return route._replace(index=route.index + 1)
    return route


def random_place(maze: Maze, rng: np.random.Generator) -> np.ndarray:
    """`[2]`, near the centre of a random free cell."""
    cell = maze.free_cells[rng.integers(len(maze.free_cells))]
    return maze.cell_to_xy(cell) + maze.scale * rng.uniform(-PLACE_NOISE, PLACE_NOISE, 2)


def new_route(maze: Maze, xy: np.ndarray, rng: np.random.Generator) -> Route:
    """The way from `xy` `[2]` to a random goal that is not reached there already."""
    while np.linalg.norm((goal := random_place(maze, rng)) - xy) <= REWARDED:
        pass
    return Route(maze.path(xy, goal))


def point_simulator(name: str) -> Any:
    """The ball of PointMaze in the maze `name`, without goals or wrappers: `set_state` and `step`.

    Raises:
        UserError: for an unknown maze, or if gymnasium-robotics is missing.
    """
    import gymnasium as gym

    point_maze(name)
    register(POINT_ENV_IDS[name])
    task: Any = gym.make(POINT_ENV_IDS[name]).unwrapped
    return task.point_env


def collect_point_maze(
    settings: Collection, *, progress: Callable[[int], None] | None = None
) -> tuple[Transition, np.ndarray]:
    """`(transitions [N, ...], timeouts [N] bool)`; equal settings give equal bits.

    Observations are `[x, y, vx, vy]`. The reward is 1 where the step ended within .45 of the goal pursued
    then, else 0; nothing terminates.

    Args:
        progress: called after every step with the number of steps so far.

    Raises:
        UserError: for settings that mean nothing, or if gymnasium-robotics is missing.
    """
    check(settings)
    maze, rng = point_maze(settings.maze), np.random.default_rng(settings.seed)
    point, count = point_simulator(settings.maze), settings.steps
    observations, following = np.empty((2, count, 4), np.float32)
    actions, rewards = np.empty((count, 2), np.float32), np.zeros(count, np.float32)
    timeouts = np.arange(1, count + 1) % settings.episode_steps == 0
    timeouts[-1] = True
    state, route = np.zeros(4), Route(np.zeros((1, 2)))
    for step in range(count):
        if step % settings.episode_steps == 0:
            state = np.concatenate([random_place(maze, rng), np.zeros(2)])
            point.set_state(state[:2], state[2:])
            route = new_route(maze, state[:2], rng)
        noisy = steer(state[:2], state[2:], route.waypoints[route.index])
        noisy = noisy + settings.noise * rng.standard_normal(2)
        observations[step], actions[step] = state, np.clip(noisy, -1.0, 1.0)
        state = point.step(actions[step])[0]
        following[step] = state
        distance = np.linalg.norm(state[:2] - route.goal)
        rewards[step] = distance <= REWARDED
        route = new_route(maze, state[:2], rng) if distance < ARRIVED else advance(route, state[:2])
        if progress is not None:
            progress(step + 1)
    point.close()
    return Transition(observations, actions, rewards, following, np.zeros(count, np.float32)), timeouts


def check(settings: Collection) -> None:
    """Raises `UserError` for settings that mean nothing."""
    point_maze(settings.maze)
    for name in ("steps", "episode_steps"):
        if getattr(settings, name) < 1:
            raise UserError(f"{name} is {getattr(settings, name)}; it must be at least 1")
    if not 0 <= settings.noise < np.inf:
        raise UserError(f"noise is {settings.noise}; it must be a number from 0 on")
    if settings.seed < 0:
        raise UserError(f"seed is {settings.seed}; it must be at least 0")
