"""Whose rewards are counted, and that the same seed gives the same episodes."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.agents import TD3BCConfig, td3_bc
from jdp.evaluation import evaluate, make_policy_step
from jdp.types import Spec, Transition

ENV_ID = "JDPCountdown-v0"


class Countdown(gym.Env):
    """1 to 7 steps, by the reset seed; reward 1 + action, 100 more with the last; dies if stepped on."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-0.5, 0.5, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 8))
        return np.array([self.left, 0.0]), {}

    def step(self, action):
        assert self.left > 0, "stepped after the end"
        assert self.action_space.contains(action)
        self.left -= 1
        reward = 1.0 + float(action[0]) + 100.0 * (self.left == 0)
        return np.array([self.left, 0.0]), reward, self.left == 0, False, {}


@pytest.fixture(autouse=True, scope="module")
def registered():
    gym.register(ENV_ID, Countdown, max_episode_steps=1000)
    gym.register("JDPEndless-v0", Countdown)
    yield
    for env_id in (ENV_ID, "JDPEndless-v0"):
        del gym.registry[env_id]


def constant(state, observations):
    """Agent i always does `state[i]`."""
    return np.broadcast_to(state[:, None, None], (*observations.shape[:2], 1))


def test_every_environment_counts_its_first_episode_and_its_last_reward():
    found = evaluate(constant, np.array([0.25, -9.0]), ENV_ID, episodes=6, seed=3)
    assert found.returns.shape == (2, 6) and found.terminated.all()
    assert len(np.unique(found.lengths)) > 2  # the fast ones have waited for the slow
    np.testing.assert_allclose(found.returns[0], 1.25 * found.lengths[0] + 100, rtol=1e-6)
    np.testing.assert_allclose(found.returns[1], 0.5 * found.lengths[1] + 100)  # clipped to -.5
    assert not np.array_equal(found.lengths[0], found.lengths[1])  # each agent has its own starts


def test_same_seed_same_bits():
    state = np.array([0.1, 0.2])
    one, two, other = (evaluate(constant, state, ENV_ID, episodes=5, seed=s) for s in (7, 7, 8))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert not np.array_equal(one.lengths, other.lengths)
    first = evaluate(constant, state[:1], ENV_ID, episodes=5, seed=7)
    np.testing.assert_array_equal(first.returns[0], one.returns[0])  # whoever else is evaluated


def test_stops_when_all_are_done_and_tells_its_progress():
    calls = []
    found = evaluate(constant, np.zeros(1), ENV_ID, episodes=5, progress=lambda *call: calls.append(call))
    assert [step for step, _ in calls] == list(range(1, found.lengths.max() + 1))
    assert [done for _, done in calls] == [(found.lengths <= step).sum() for step, _ in calls]


def test_time_limit():
    found = evaluate(constant, np.zeros(1), ENV_ID, episodes=12, max_episode_steps=3)
    assert found.lengths.max() == 3
    unlimited = evaluate(constant, np.zeros(1), ENV_ID, episodes=12)
    np.testing.assert_array_equal(found.terminated, unlimited.lengths <= 3)
    np.testing.assert_array_equal(found.returns, np.minimum(unlimited.lengths, 3) + 100 * found.terminated)


def test_policy_step_compiles_once():
    spec = Spec(2, 1)
    agent = td3_bc(TD3BCConfig(hidden=(4,)), spec)
    ones = jnp.ones(4)
    data = Transition(jnp.ones((4, 2)), jnp.ones((4, 1)), ones, jnp.ones((4, 2)), ones)
    for seed in range(2):
        state = jax.vmap(agent.init, in_axes=(0, None))(jax.random.split(jax.random.key(seed), 2), data)
        again = td3_bc(TD3BCConfig(hidden=(4,)), Spec(2, 1))
        evaluate(make_policy_step(again), state, ENV_ID, episodes=3, seed=seed)
    assert make_policy_step(agent)._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.parametrize(
    "env_id, line",
    [
        ("Hoper-v5", "Hopper"),
        ("Hopper-v2", "Hopper-v4"),
        ("HalfCheetah-v3", "HalfCheetah-v4"),
        (None, "names no simulator"),
        ("JDPEndless-v0", "max_episode_steps"),
        ("CartPole-v1", "not vectors"),
    ],
)
def test_mistakes_get_one_line(env_id, line):
    with pytest.raises(UserError, match=line) as error:
        evaluate(constant, np.zeros(1), env_id, episodes=1)
    assert "\n" not in str(error.value)
