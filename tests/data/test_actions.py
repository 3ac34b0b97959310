"""Actions of a task whose box is not [-1, 1]: scaled when data come in, back where a policy acts."""

from dataclasses import replace

import gymnasium as gym
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_files import columns, write

import jdp
from jdp import UserError
from jdp.data.export import save_d4rl, save_minari
from jdp.evaluation import Simulator, environment_maker, make_env
from jdp.loops import play
from jdp.types import Decision, Policy, Spec

ASYMMETRIC = Spec(3, 2, action_low=(-2.0, 0.0), action_high=(2.0, 5.0))


def pendulum(n=40, seed=0):
    """A short recording of Pendulum-v1, whose torque lies in [-2, 2], in the units of the task."""
    env, rng, rows = gym.make("Pendulum-v1"), np.random.default_rng(seed), []
    seen, _ = env.reset(seed=0)
    for i in range(n):
        torque = rng.uniform(-1.9, 1.9, 1).astype(np.float32)
        following, reward, *_ = env.step(torque)
        rows.append((seen, torque, reward, following, False, i == n - 1))
        seen = following
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    values = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return values | {
        k: values[k].astype(np.float32) for k in ("observations", "rewards", "next_observations")
    }


def test_the_box_is_an_affine_map_and_nothing_where_it_is_the_unit_box():
    unit = np.array([[-1, -1], [1, 1], [0, 0]], np.float32)
    np.testing.assert_allclose(ASYMMETRIC.task_actions(unit), [[-2, 0], [2, 5], [0, 2.5]])
    for actions in (unit, jnp.asarray(unit), unit[0]):
        there = ASYMMETRIC.task_actions(actions)
        np.testing.assert_allclose(ASYMMETRIC.unit_actions(there), actions, atol=1e-6)
        assert Spec(3, 2).task_actions(actions) is actions


def test_data_come_in_scaled_and_policies_play_scaled_back(tmp_path):
    values = pendulum()
    data = jdp.data.load(write(tmp_path / "pendulum.hdf5", values), env_id="Pendulum-v1")
    np.testing.assert_allclose(data.actions, values["actions"] / 2, atol=1e-6)
    assert data.spec.action_low == (-2.0,) and data.spec.max_episode_steps == 200
    assert "mapped from the box" in data.origin.notice
    # The recorded actions, replayed in the dataset's task, lead where they led.
    env = make_env(data.spec)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    env.reset(seed=0)
    for action, following in zip(data.actions, data.next_observations, strict=True):
        np.testing.assert_allclose(env.step(action)[0], following, atol=1e-4)


def test_an_agent_is_played_in_the_units_of_the_task():
    spec = Spec(3, 1, "Pendulum-v1", 5, action_low=(-2.0,), action_high=(2.0,))

    def full_torque(key, state, carry, observation, goal):
        rows = observation.shape[0]
        return carry, Decision(jnp.ones((rows, 1)), jnp.ones(rows, bool))

    policy = Policy(lambda observation: (), full_torque)
    played = play(policy, jax.random.key(0), {}, environment_maker(spec), episodes=2, seed=3)
    env, returns = gym.make("Pendulum-v1", max_episode_steps=5), []
    for seed in np.random.SeedSequence(3).generate_state(2).tolist():
        env.reset(seed=seed)
        returns.append(sum(float(env.step(np.array([2.0], np.float32))[1]) for _ in range(5)))
    np.testing.assert_allclose(played.returns, returns, rtol=1e-6)
    np.testing.assert_array_equal(played.lengths, 5)


def test_a_simulator_steps_with_scaled_actions():
    humanoid = Spec(4, 1, "InvertedPendulum-v5", action_low=(-3.0,), action_high=(3.0,))
    plain, scaled = Simulator("InvertedPendulum-v5"), Simulator(humanoid)
    state = np.array([0.1, -0.05, 0.2, 0.1])
    np.testing.assert_allclose(scaled.step(state, np.array([0.5]))[0], plain.step(state, np.array([1.5]))[0])


def test_actions_that_may_be_read_either_way_are_asked_about(tmp_path):
    values = pendulum()
    values["actions"] = np.clip(values["actions"], -1, 1)  # a clipped policy, or one that was scaled
    path = write(tmp_path / "clipped.hdf5", values)
    with pytest.raises(UserError, match=r"reach 1 .* \[-2, 2\] of Pendulum-v1.*--actions"):
        jdp.data.load(path, env_id="Pendulum-v1")
    as_task = jdp.data.load(path, env_id="Pendulum-v1", actions="task")
    scaled = jdp.data.load(path, env_id="Pendulum-v1", actions="scaled")
    np.testing.assert_allclose(2 * as_task.actions, scaled.actions, atol=1e-6)
    assert as_task.spec == scaled.spec and scaled.spec.action_high == (2.0,)


def test_actions_outside_the_box_are_refused(tmp_path):
    values = pendulum()
    values["actions"][7] = 2.5
    path = write(tmp_path / "outside.hdf5", values)
    with pytest.raises(UserError, match=r"row 7 lies outside the box \[-2, 2\]"):
        jdp.data.load(path, env_id="Pendulum-v1")
    with pytest.raises(UserError, match="name the task with"):
        jdp.data.load(path)  # of no task is there a box


def test_what_jdp_writes_is_in_the_units_of_the_task_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    data = jdp.data.load(write(tmp_path / "pendulum.hdf5", pendulum()), env_id="Pendulum-v1")
    steps = jdp.data.transitions(data)
    save_d4rl(tmp_path / "again.hdf5", steps, spec=data.spec)
    save_minari("jdp/pendulum-v0", steps, spec=data.spec)
    with h5py.File(tmp_path / "again.hdf5") as file:
        np.testing.assert_allclose(np.asarray(file["actions"]), 2 * data.actions, atol=1e-6)
    for name in (str(tmp_path / "again.hdf5"), "jdp/pendulum-v0"):
        again = jdp.data.load(name)
        np.testing.assert_allclose(again.actions, data.actions, atol=1e-6)
        assert again.spec == replace(data.spec, max_episode_steps=200)


def test_a_constant_beside_a_large_offset_is_no_rounding(tmp_path):
    values = columns(1000)
    wide = values["observations"].astype(np.float64)
    wide[:, 1] = 1e9 + np.linspace(0, 1, 1000)  # 1,000 values, of which float32 makes one
    following = np.concatenate([wide[1:], wide[-1:]])
    with pytest.raises(UserError, match=r"channel 1 of 'observations' varies by 0.29 around 1e"):
        jdp.data.load(
            write(tmp_path / "a.hdf5", values | {"observations": wide, "next_observations": following})
        )
    wide[:, 1] = 1e9
    following = np.concatenate([wide[1:], wide[-1:]])
    jdp.data.load(write(tmp_path / "b.hdf5", values | {"observations": wide, "next_observations": following}))
