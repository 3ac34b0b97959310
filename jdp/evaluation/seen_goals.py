"""Goals as part of what is observed, on the host: `jdp.tasks.simulators.observed_goal` of environments."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jdp.evaluation.goal_tasks import Step
from jdp.loops import Environment


class SeesGoal:
    """An environment whose observations `[O + G]` end with the goal, and that has no goals beside them."""

    def __init__(self, env: Environment):
        self.env = env

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit."""
        return self.env.max_episode_steps

    def reset(self, seed: int, **place: Any) -> tuple[np.ndarray, np.ndarray]:
        """As of the environment."""
        observation, goal = self.env.reset(seed, **place)
        return np.concatenate([observation, goal]), goal[:0]

    def step(self, action: np.ndarray) -> Step:
        """As of the environment."""
        observation, goal, reward, terminated, truncated, success = self.env.step(action)
        seen = np.concatenate([observation, goal])
        return Step(seen, goal[:0], reward, terminated, truncated, success)

    def close(self) -> None:
        """Frees what it holds."""
        self.env.close()


def seeing_goals(make: Callable[[], Environment]) -> Callable[[], SeesGoal]:
    """`make`, for agents that know no goals."""
    return lambda: SeesGoal(make())
