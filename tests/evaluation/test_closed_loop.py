"""Closed loops of a countdown: what is counted, what is stepped, and which decisions are timed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.evaluation import Step, latency, play
from jdp.types import Policy

KEY = jax.random.key(0)


class Countdown:
    """1 to 7 steps, by the reset seed; reward 1 + action, 100 more with the last; dies if stepped on.

    The goal is the number of steps left, reached when two are left.
    """

    max_episode_steps: int | None = 10

    def reset(self, seed: int, *, left: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        self.left = left or 1 + seed % 7
        return np.array([self.left, 0.0]), np.array([self.left])

    def step(self, action: np.ndarray) -> Step:
        assert self.left > 0, "stepped after the end"
        self.left -= 1
        reward, ended = 1.0 + float(action[0]) + 100.0 * (self.left == 0), self.left == 0
        now = np.array([self.left, float(action[0])])
        return Step(now, np.array([self.left]), reward, ended and self.left % 2 == 0, ended, self.left == 2)

    def close(self) -> None:
        self.closed = True


def _count(observation):
    return jnp.zeros((), jnp.int32)


def _constant(key, state, carry, observation, goal):
    return carry + 1, jnp.full((observation.shape[0], 1), state)


def _noise(key, state, carry, observation, goal):
    return carry + 1, state * jax.random.normal(key, (observation.shape[0], 1))


CONSTANT, NOISE = Policy(_count, _constant), Policy(_count, _noise)


def test_every_episode_counts_its_own_steps_rewards_and_success():
    made = []

    def make():
        made.append(Countdown())
        return made[-1]

    found = play(CONSTANT, KEY, jnp.float32(0.25), make, episodes=8, seed=3)
    begun = found.observation[0, :, 0]
    assert len(np.unique(begun)) > 3  # the fast ones have waited for the slow: Countdown dies if stepped on
    np.testing.assert_array_equal(found.lengths, begun)
    np.testing.assert_allclose(found.returns, 1.25 * found.lengths + 100)
    np.testing.assert_array_equal(found.success, begun > 2)  # at any step, not only at the last
    np.testing.assert_array_equal(found.goal[:, 0], begun)  # of the beginning
    # What was seen goes on with the last observation.
    steps = np.arange(found.lengths.max() + 1)[:, None]
    np.testing.assert_array_equal(found.observation[..., 0], np.maximum(begun - steps, 0))
    assert all(env.closed for env in made)


def test_same_key_same_bits():
    def returns(key):
        return play(NOISE, key, jnp.float32(1.0), Countdown, episodes=5, seed=1).returns

    np.testing.assert_array_equal(returns(KEY), returns(KEY))
    assert (returns(KEY) != returns(jax.random.key(1))).all()


def test_watch_and_progress_see_each_step():
    watched, told = [], []

    def watch(step, carry, observation, running):
        watched.append((step, int(carry), observation[:, 0].tolist(), running.tolist()))

    found = play(
        CONSTANT,
        KEY,
        jnp.float32(0.0),
        Countdown,
        episodes=4,
        seed=3,
        watch=watch,
        progress=lambda *a: told.append(a),
    )
    steps = range(found.lengths.max())
    # Before each step: its number, what the policy remembers, what it sees, and who still plays.
    expected = [(k, k, found.observation[k, :, 0].tolist(), (found.lengths > k).tolist()) for k in steps]
    assert watched == expected
    assert told == [(k + 1, int((found.lengths <= k + 1).sum())) for k in steps]


def test_the_place_reaches_every_environment():
    found = play(CONSTANT, KEY, jnp.float32(0.0), Countdown, episodes=3, place={"left": 4})
    np.testing.assert_array_equal(found.lengths, 4)


def test_a_task_without_a_time_limit_is_refused():
    class Endless(Countdown):
        max_episode_steps = None

    with pytest.raises(UserError, match="no time limit"):
        play(CONSTANT, KEY, jnp.float32(0.0), Endless, episodes=2)


class Clock:
    """Time that passes only in the environment, before the decisions it is told of."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def timed(monkeypatch, length: int, **options):
    """`latency` in episodes of `length` steps, where the first decision of all takes 1000 s, the first of an
    episode 30 s, every third step 6 s, another step 1 s."""
    from jdp.evaluation import closed_loop

    clock, calls = Clock(), []

    def act(key, state, carry, observation, goal):
        assert observation.shape == (1, 2) and goal.shape == (1, 1)
        kind = 30.0 if carry == 0 else 6.0 if carry % 3 == 0 else 1.0
        calls.append(carry)
        clock.now += kind if len(calls) > 1 else 1000.0
        return carry + 1, np.zeros((1, 1))

    class Long(Countdown):
        def reset(self, seed):
            return super().reset(seed, left=length)

    monkeypatch.setattr(closed_loop, "time", clock)
    monkeypatch.setattr(
        closed_loop, "controller", lambda policy: closed_loop.Controller(lambda observation: 0, act)
    )
    return latency(CONSTANT, KEY, None, Long, every=3, **options), calls


def test_latency_counts_decisions_and_leaves_compilation_out(monkeypatch):
    found, calls = timed(monkeypatch, 100, decisions=4)
    assert (found.median, found.percentile_95, found.first) == (6.0, 6.0, 30.0)
    assert found.step == (6.0 + 2 * 1.0) / 3  # one that plans, two that follow
    assert [c for c in calls if c and c % 3 == 0] == [3, 6, 9, 12]  # as many as were asked for
    assert calls.count(0) == 2


def test_latency_begins_again_when_an_episode_ends(monkeypatch):
    found, calls = timed(monkeypatch, 5, decisions=4)  # decisions at steps 0 and 3 of each episode
    assert calls == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    assert (found.median, found.first) == (6.0, 30.0)
    found, calls = timed(monkeypatch, 2, decisions=3)  # the first decision of an episode is its only one
    assert set(calls) == {0, 1} and (found.median, found.first) == (30.0, 30.0)
