"""The play loop on a countdown: what is counted, what is stepped, what is seen, and what compiles."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_made import CONSTANT, NOISE, Countdown, agent, count, decide

from jdp import UserError
from jdp.devices import data_mesh
from jdp.evaluation import make_goal_env
from jdp.loops import play
from jdp.loops.controller import controller
from jdp.types import Decision, Policy

KEY = jax.random.key(0)
ENV_ID = "JDPCountdown-v0"


class Task(gym.Env):
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
    gym.register(ENV_ID, Task, max_episode_steps=1000)
    gym.register("JDPEndless-v0", Task)
    yield
    for env_id in (ENV_ID, "JDPEndless-v0"):
        del gym.registry[env_id]


def in_task(state, env_id=ENV_ID, limit=None, **options):
    """Agents `[S]`, each of which always does `state[i]`, in a task of Gymnasium."""
    seeds = len(state)
    return play(
        CONSTANT,
        KEY,
        jnp.asarray(state, jnp.float32),
        lambda: make_goal_env(env_id, max_episode_steps=limit),
        seeds=seeds,
        **options,
    )


def test_every_environment_counts_its_first_episode_and_its_last_reward():
    found = in_task([0.25, -9.0], episodes=6, seed=3)
    assert found.returns.shape == (2, 6) and found.terminated.all()
    assert len(np.unique(found.lengths)) > 2  # the fast ones have waited for the slow
    np.testing.assert_allclose(found.returns[0], 1.25 * found.lengths[0] + 100, rtol=1e-6)
    np.testing.assert_allclose(found.returns[1], 0.5 * found.lengths[1] + 100)  # clipped to -.5
    assert not np.array_equal(found.lengths[0], found.lengths[1])  # each agent has its own starts
    assert not found.success.any() and found.goal.shape == (2, 6, 0)  # a task without goals


def test_every_episode_counts_its_own_steps_rewards_and_success():
    made = []

    def make():
        made.append(Countdown())
        return made[-1]

    found = play(CONSTANT, KEY, jnp.float32(0.25), make, episodes=8, seed=3, observations=True)
    assert found.observation is not None
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


def test_same_seed_and_key_same_bits():
    one, two, other = (in_task([0.1, 0.2], episodes=5, seed=s) for s in (7, 7, 8))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert not np.array_equal(one.lengths, other.lengths)
    first = in_task([0.1], episodes=5, seed=7)
    np.testing.assert_array_equal(first.returns[0], one.returns[0])  # whoever else is evaluated

    def returns(key):
        return play(NOISE, key, jnp.float32(1.0), Countdown, episodes=5, seed=1).returns

    np.testing.assert_array_equal(returns(KEY), returns(KEY))
    assert (returns(KEY) != returns(jax.random.key(1))).all()


def test_seeds_act_with_their_own_states_and_noise():
    found = play(NOISE, KEY, jnp.array([1.0, 1.0, 0.0]), Countdown, episodes=4, seeds=3, seed=1)
    noise = found.returns - found.lengths - 100
    np.testing.assert_allclose(noise[2], 0, atol=1e-6)
    assert (noise[0] != noise[1]).all()


def test_watch_and_progress_see_each_step():
    watched, told = [], []

    def watch(step, decision, observation, running):
        decided, action = np.asarray(decision.decided), np.asarray(decision.action)
        watched.append((step, decided.tolist(), action.shape, observation[:, 0].tolist(), running.tolist()))

    found = play(
        Policy(count, lambda key, state, carry, o, g: decide(carry, jnp.zeros((o.shape[0], 1)), every=3)),
        KEY,
        jnp.float32(0.0),
        Countdown,
        episodes=4,
        seed=3,
        watch=watch,
        progress=lambda *a: told.append(a),
        observations=True,
    )
    assert found.observation is not None
    steps, decided = range(found.lengths.max()), [k % 3 == 0 for k in range(found.lengths.max())]
    # At each step: its number, whether it drew anew, what it sees, and who still plays.
    expected = [
        (k, [decided[k]] * 4, (4, 1), found.observation[k, :, 0].tolist(), (found.lengths > k).tolist())
        for k in steps
    ]
    assert watched == expected
    assert told == [(k + 1, int((found.lengths <= k + 1).sum())) for k in steps]
    np.testing.assert_array_equal(
        found.decided, [[decided[k] and k < length for length in found.lengths] for k in steps]
    )


def test_the_place_reaches_every_environment():
    found = play(CONSTANT, KEY, jnp.float32(0.0), Countdown, episodes=3, place={"left": 4})
    np.testing.assert_array_equal(found.lengths, 4)


def test_time_limit():
    found = in_task([0.0], episodes=12, limit=3)
    assert found.lengths.max() == 3
    unlimited = in_task([0.0], episodes=12)
    np.testing.assert_array_equal(found.terminated, unlimited.lengths <= 3)
    np.testing.assert_array_equal(found.returns, np.minimum(unlimited.lengths, 3) + 100 * found.terminated)


def test_new_weights_compile_nothing_and_equal_policies_are_one_program():
    for seed in range(2):
        state = {"w": jax.random.normal(jax.random.key(seed), (2, 2, 1)), "shift": jnp.zeros((2, 2))}
        play(agent().policy, KEY, state, Countdown, episodes=3, seeds=2, seed=seed)
    assert controller(agent().policy, None, True).act._cache_size() == 1  # pyright: ignore


@pytest.mark.parametrize(("episodes", "seeds"), [(16, 2), (5, 2), (5, None)])
def test_eight_devices_play_what_one_plays(episodes, seeds):
    state = jnp.array([0.3, 0.7]) if seeds else jnp.float32(0.3)
    one, eight = (
        play(CONSTANT, KEY, state, Countdown, episodes=episodes, seeds=seeds, seed=2, mesh=mesh)
        for mesh in (None, data_mesh())
    )
    jax.tree.map(np.testing.assert_allclose, one, eight)
    # The rows are split, and the carry keeps its place from step to step.
    assert controller(CONSTANT, data_mesh(), seeds is not None).act._cache_size() <= 2  # pyright: ignore


def test_rows_of_a_carry_can_be_reset_alone():
    """As a loop that restarts its environments does: nothing in a policy's memory is shared by the batch."""
    carry, _ = NOISE.act(
        KEY, jnp.float32(1.0), NOISE.init(jnp.zeros((3, 2))), jnp.zeros((3, 2)), jnp.zeros((3, 0))
    )
    done = jnp.array([False, True, False])
    fresh = NOISE.init(jnp.zeros((3, 2)))
    mixed = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, carry)
    np.testing.assert_array_equal(mixed, [1, 0, 1])


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
        in_task([0.0], env_id, episodes=1)
    assert "\n" not in str(error.value)


def test_a_task_without_a_time_limit_is_refused_and_closed():
    made = []

    class Endless(Countdown):
        max_episode_steps = None

        def __init__(self):
            made.append(self)

    with pytest.raises(UserError, match="no time limit"):
        play(CONSTANT, KEY, jnp.float32(0.0), Endless, episodes=2)
    assert made and all(env.closed for env in made)


def test_what_a_decision_tells_besides_reaches_whoever_watches():
    def act(key, state, carry, observation, goal):
        action = jnp.zeros((observation.shape[0], 1))
        return carry + 1, Decision(action, carry == 0, value=observation[:, 0])

    seen = []
    play(
        Policy(count, act),
        KEY,
        None,
        Countdown,
        episodes=3,
        watch=lambda step, decision, o, running: seen.append((np.asarray(decision.value), o[:, 0])),
    )
    for value, observation in seen:
        np.testing.assert_array_equal(value, observation)
