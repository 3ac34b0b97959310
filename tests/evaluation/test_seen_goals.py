"""Agents that know no goals see them as the end of what they observe, on the host as in JAX."""

import numpy as np

from jdp.evaluation import seeing_goals
from jdp.evaluation.goal_tasks import Step


class Fixed:
    max_episode_steps = 7

    def reset(self, seed, **place):
        return np.full(4, float(seed)), np.array([8.0, 9.0])

    def step(self, action):
        return Step(action, np.array([8.0, 9.0]), 0.5, True, False, True)

    def close(self):
        self.closed = True


def test_the_goal_is_the_end_of_the_observation_and_the_rest_is_the_environments():
    env = seeing_goals(Fixed)()
    first, goal = env.reset(3)
    np.testing.assert_array_equal(first, [3, 3, 3, 3, 8, 9])
    found = env.step(np.arange(4.0))
    np.testing.assert_array_equal(found.observation, [0, 1, 2, 3, 8, 9])
    assert goal.shape == found.goal.shape == (0,) and env.max_episode_steps == 7
    assert found[2:] == (0.5, True, False, True)
