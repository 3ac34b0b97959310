"""The dynamics error is nothing on real data, and exactly the perturbation on perturbed data."""

import numpy as np
import pytest

import jdp
from jdp import UserError
from jdp.evaluation import Simulator, dynamics_error, make_env, supports
from jdp.types import Spec

TASKS = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Hopper-v4", "HalfCheetah-v4", "Walker2d-v4")
LENGTH = 10


def real_windows(env_id, steps=300, action_size=1.0):
    """`observations, actions, rewards, terminals, valid` of random actions, in windows of 10."""
    env, rng = make_env(env_id), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    columns, after_end = [], False
    for _ in range(steps):
        action = action_size * rng.uniform(-1, 1, env.action_space.shape)
        following, reward, terminated, truncated, _ = env.step(action)
        columns.append((observation, action, reward, terminated))
        after_end = terminated or truncated
        observation = env.reset()[0] if after_end else following
    env.close()
    windows = [np.stack(x) for x in zip(*columns, strict=True)]
    windows = [x.reshape(-1, LENGTH, *x.shape[1:]).astype(np.float32) for x in windows]
    valid = windows[3][:, :-1] == 0  # a terminal's next observation is not in these windows
    return (*windows, valid)


@pytest.fixture(scope="module")
def hopper():
    return Simulator("Hopper-v5"), real_windows("Hopper-v5")


@pytest.mark.parametrize("env_id", TASKS)
def test_nothing_on_real_data(env_id):
    o, a, r, d, valid = real_windows(env_id, action_size=0.3 if "Walker" in env_id else 1.0)
    if "Cheetah" not in env_id:  # a clipped velocity hides the state
        valid &= np.abs(o[:, :-1]).max(-1) < 10
    found = dynamics_error(Simulator(env_id), o, a, r, valid, o.std((0, 1)), r.std(), terminals=d)
    assert found.transitions + found.undetermined == valid.sum() > 80
    assert found.median < 1e-12 and found.mean < 1e-11
    assert found.reward_median < 1e-10 and found.terminal_mismatch_rate == 0


def test_equals_a_known_perturbation(hopper):
    simulator, (o, a, r, d, _) = hopper
    valid = np.zeros((len(o), LENGTH - 1), bool)
    valid[:, 3] = d[:, 3] == 0
    std, reward_std = np.linspace(0.5, 2, 11), 4.0
    o = o.astype(np.float64)
    o[:, 4] += np.arange(11) * 0.1  # only ever a next observation here
    found = dynamics_error(simulator, o, a, r + 2.0, valid, std, reward_std, terminals=1 - d)
    expected = np.mean(np.square(np.arange(11) * 0.1 / std))
    np.testing.assert_allclose(found.per_transition[valid], expected, rtol=1e-4)
    np.testing.assert_allclose(found.reward_error[valid], 0.25, rtol=1e-4)
    assert found.terminal_mismatch_rate == 1 and np.isnan(found.per_transition[~valid]).all()
    assert found.median_by_position[3] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(np.delete(found.mean_by_position, 3)).all()


def test_a_terminal_is_recognised():
    """A Hopper that lies down has ended the task, whatever the generator says of it."""
    simulator = Simulator("Hopper-v5")
    lying = np.zeros((1, 2, 11))
    lying[..., 0] = 0.3  # height; healthy is above 0.7
    args = (lying, np.zeros((1, 2, 3)), np.zeros((1, 2)), np.ones((1, 1), bool), np.ones(11), 1.0)
    assert dynamics_error(simulator, *args, terminals=np.zeros((1, 2))).terminal_mismatch_rate == 1
    assert dynamics_error(simulator, *args, terminals=np.ones((1, 2))).terminal_mismatch_rate == 0
    assert np.isnan(dynamics_error(simulator, *args).terminal_mismatch_rate)


def test_what_is_not_finite_counts_as_infinite(hopper):
    simulator, (o, a, r, _, valid) = hopper
    o = o[:3].copy()
    o[0, 2], valid = np.nan, valid[:3]
    found = dynamics_error(simulator, o, a[:3], r[:3], valid, np.ones(11), 1.0)
    assert np.isinf(found.per_transition[0, 1:3]).all() and np.isfinite(found.per_transition[1]).all()
    assert np.isfinite(found.median) and np.isinf(found.mean)


def test_nothing_to_count(hopper):
    simulator, (o, a, r, _, valid) = hopper
    found = dynamics_error(simulator, o, a, r, np.zeros_like(valid), np.ones(11), 1.0)
    assert found.transitions == 0 and np.isnan(found.median) and np.isnan(found.mean)


def test_what_is_supported():
    assert supports("Hopper-v5", Spec(11, 3)) and supports("Ant-v5", Spec(105, 8))
    assert supports("Ant-v4", Spec(27, 8)) and supports("Swimmer-v5", Spec(8, 2))
    assert not supports("Hopper-v5", Spec(12, 3))  # another observation
    assert not supports("Reacher-v5", Spec(10, 2))  # cosines and sines of its angles
    assert not supports("CartPole-v1", Spec(4, 1)) and not supports(None, Spec(4, 1))
    with pytest.raises(UserError, match="does not determine"):
        Simulator("Reacher-v5")
    with pytest.raises(UserError, match="not a MuJoCo task"):
        Simulator("Pendulum-v1")


def test_wrong_shape_of_valid_gets_one_line(hopper):
    simulator, (o, a, r, d, _) = hopper
    with pytest.raises(UserError, match="valid has shape"):
        dynamics_error(simulator, o, a, r, d == 0, np.ones(11), 1.0)


@pytest.mark.parametrize(
    ("name", "env_id"), [("hopper-medium", "Hopper-v5"), ("walker2d-medium", "Walker2d-v5")]
)
def test_states_with_clipped_velocities_are_told_and_the_rest_reproduces(name, env_id):
    data = jdp.data.load(name, source="bundled")
    rows = np.random.default_rng(0).integers(len(data), size=300)
    simulator = Simulator(env_id)
    told = simulator.determined(data.observations[rows])
    following, _, _ = simulator.steps(data.observations[rows], data.actions[rows])
    error = np.square((following - data.next_observations[rows]) / data.observations.std(0)).mean(1)
    assert error[told].max() < 1e-9  # float32
    assert 0.1 < told.mean() < 0.95 and np.median(error[~told]) > 1e-5  # what was left out matters


def test_a_task_that_clips_nothing_is_determined_everywhere():
    simulator = Simulator("HalfCheetah-v5")
    fast = np.zeros((2, 5, 17))
    fast[..., -1] = 500.0
    assert simulator.determined(fast).shape == (2, 5) and simulator.determined(fast).all()


def test_states_that_the_observation_clips_do_not_count(hopper):
    """Walker2d and Hopper show velocities up to 10: real data from clipped states would seem wrong."""
    data = jdp.data.load("walker2d-medium", source="bundled")
    simulator, rows = Simulator("Walker2d-v5"), np.random.default_rng(1).integers(len(data), size=200)
    o = np.stack([data.observations[rows], data.next_observations[rows]], axis=1)
    a, r = (np.repeat(x[rows][:, None], 2, axis=1) for x in (data.actions, data.rewards))
    std, valid = data.observations.std(0), np.ones((200, 1), bool)
    found = dynamics_error(simulator, o, a, r, valid, std, 1.0)
    clipped = (np.abs(o[:, 0, 8:]) >= 9.9).any(axis=1)
    assert found.undetermined == clipped.sum() > 20 and found.transitions == (~clipped).sum()
    assert np.isnan(found.per_transition[clipped]).all() and found.mean < 1e-9
    i, j = np.flatnonzero(~clipped)[:2]
    o[i, 0, 9], o[j, 0, 9] = 60.0, np.nan  # no velocities that the task shows: they count
    wrong = dynamics_error(simulator, o, a, r, valid, std, 1.0)
    assert wrong.per_transition[i, 0] > 1e-3 and np.isinf(wrong.per_transition[j, 0])
