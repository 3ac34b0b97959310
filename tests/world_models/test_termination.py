"""Termination rules against the simulator's own verdict on states around their thresholds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.tasks.environments import make_env
from jdp.world_models.termination import RULES, choose, never, rule

STATES = 10_000
VERSIONS = ("v4", "v5")


def simulator(env_id) -> Any:
    env = make_env(env_id).unwrapped
    env.reset(seed=0)
    return env


def verdicts(env_id, qpos, qvel, judge, *, forward=False):
    """`(shown observations, true states, unhealthy)` of the simulator set to each state."""
    env = simulator(env_id)
    qpos, qvel = (x.astype(np.float32).astype(np.float64) for x in (qpos, qvel))  # as the rule sees them
    found = []
    for position, velocity in zip(qpos, qvel, strict=True):
        if forward:  # where the verdict needs more than the state itself; it takes long
            env.set_state(position, velocity)
        else:
            env.data.qpos[:], env.data.qvel[:] = position, velocity
        found.append((env._get_obs(), env.state_vector(), judge(env)))
    return tuple(np.stack(x) for x in zip(*found, strict=True))


def unhealthy(env):
    return not env.is_healthy


def ended(env_id, observations):
    found = rule(env_id)
    assert found is not None
    observations = jnp.asarray(observations, jnp.float32)
    actions = jnp.zeros((len(observations), 1))
    # From observations that would themselves be terminal: only where a step leads counts.
    return np.asarray(jax.jit(found)(jnp.full_like(observations, jnp.nan), actions, observations))


def both_sides(verdict):
    assert 0.1 < verdict.mean() < 0.9


@pytest.mark.parametrize("version", VERSIONS)
def test_hopper_ends_where_the_simulator_says_so(version):
    rng = np.random.default_rng(0)
    qpos = rng.uniform([-5, 0.55, -0.25, -2, -2, -2], [5, 1.5, 0.25, 2, 2, 2], (STATES, 6))
    qvel = rng.uniform(-9, 9, (STATES, 6))
    # A quarter has a joint or a velocity around the limit of 100 of either sign.
    odd = rng.random(STATES) < 0.25
    column = rng.integers(3, 12, STATES)
    value = rng.uniform(60, 140, STATES) * rng.choice([-1, 1], STATES)
    state = np.concatenate([qpos, qvel], axis=1)
    state[odd, column[odd]] = value[odd]
    shown, true, verdict = verdicts(f"Hopper-{version}", state[:, :6], state[:, 6:], unhealthy)
    both_sides(verdict)
    # A model's observation has velocities as they are; the simulator's has them clipped to 10.
    np.testing.assert_array_equal(ended(f"Hopper-{version}", true[:, 1:]), verdict)
    visible = np.abs(true[:, 6:]).max(axis=1) < 100
    np.testing.assert_array_equal(ended(f"Hopper-{version}", shown[visible]), verdict[visible])
    upright = (true[:, 1] > 0.7) & (np.abs(true[:, 2]) < 0.2)
    negative = upright & (true[:, 3:].min(axis=1) < -100)  # what MBPO's own rule lets pass
    assert negative.sum() > 100 and verdict[negative].all()


@pytest.mark.parametrize("version", VERSIONS)
def test_walker2d_ends_where_the_simulator_says_so(version):
    rng = np.random.default_rng(1)
    low, high = [-5, 0.6, -1.3] + [-3] * 6, [5, 2.2, 1.3] + [3] * 6
    qpos, qvel = rng.uniform(low, high, (STATES, 9)), rng.uniform(-200, 200, (STATES, 9))
    shown, true, verdict = verdicts(f"Walker2d-{version}", qpos, qvel, unhealthy)
    both_sides(verdict)
    np.testing.assert_array_equal(ended(f"Walker2d-{version}", shown), verdict)
    np.testing.assert_array_equal(ended(f"Walker2d-{version}", true[:, 1:]), verdict)


@pytest.mark.parametrize(
    ("task", "height"), [("Ant", (0.0, 1.3)), ("Humanoid", (0.7, 2.4))], ids=["Ant", "Humanoid"]
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_body_on_a_free_joint_ends_by_its_height(task, height, version):
    env = simulator(f"{task}-{version}")
    nq, nv = env.model.nq, env.model.nv
    rng = np.random.default_rng(2)
    qpos, qvel = rng.uniform(-1, 1, (STATES, nq)), rng.uniform(-5, 5, (STATES, nv))
    qpos[:, 2] = rng.uniform(height[0], height[1], STATES)
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    shown, _, verdict = verdicts(f"{task}-{version}", qpos, qvel, unhealthy)
    both_sides(verdict)
    np.testing.assert_array_equal(ended(f"{task}-{version}", shown), verdict)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pendulum_ends_where_a_step_of_the_simulator_does(version):
    env = simulator(f"InvertedPendulum-{version}")
    rng = np.random.default_rng(3)
    observations, verdict = [], []
    for _ in range(STATES):
        env.set_state(rng.uniform([-1, -0.35], [1, 0.35]), rng.uniform(-2, 2, 2))
        following, _, terminated, _, _ = env.step(rng.uniform(-3, 3, 1))
        observations.append(following)
        verdict.append(terminated)
    both_sides(np.asarray(verdict))
    np.testing.assert_array_equal(ended(f"InvertedPendulum-{version}", np.stack(observations)), verdict)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_double_pendulum_ends_by_the_height_of_its_tip(version):
    rng = np.random.default_rng(4)
    qpos, qvel = rng.uniform([-1, -1, -1], [1, 1, 1], (STATES, 3)), rng.uniform(-9, 9, (STATES, 3))
    env_id = f"InvertedDoublePendulum-{version}"
    fallen = lambda env: env.data.site_xpos[0][2] <= 1  # noqa: E731
    shown, _, verdict = verdicts(env_id, qpos, qvel, fallen, forward=True)
    both_sides(verdict)
    np.testing.assert_array_equal(ended(env_id, shown), verdict)


@pytest.mark.parametrize("task", sorted(t for t, r in RULES.items() if r is never))
@pytest.mark.parametrize("version", VERSIONS)
def test_what_never_ends_never_ends_in_the_simulator(task, version):
    try:
        env = simulator(f"{task}-{version}")
    except UserError as error:  # Pusher-v4 needs an older MuJoCo
        pytest.skip(str(error))
    rng = np.random.default_rng(5)
    for _ in range(200):
        # Wherever the body is: standing, lying, upside down.
        qpos = env.init_qpos + rng.uniform(-2, 2, env.model.nq)
        env.set_state(qpos, rng.uniform(-5, 5, env.model.nv))
        following, _, terminated, _, _ = env.step(env.action_space.sample())
        assert not terminated
    assert not ended(f"{task}-{version}", following[None]).any()


@pytest.mark.parametrize("task", sorted(t for t, r in RULES.items() if r is not never))
def test_what_is_not_finite_ends_every_task_that_can_end(task):
    observation = np.array(simulator(f"{task}-v5").reset(seed=0)[0])
    assert not ended(f"{task}-v5", observation[None]).any()
    for value in (np.nan, np.inf, -np.inf):
        for place in (0, 1, -1):
            broken = observation.copy()
            broken[place] = value
            assert ended(f"{task}-v5", broken[None]).all()


def test_rules_take_any_leading_axes_and_one_observation():
    for found in RULES.values():
        for shape in ((), (4,), (2, 3)):
            o, a = jnp.ones((*shape, 11)), jnp.zeros((*shape, 3))
            verdict = found(o, a, o)
            assert verdict.shape == shape and verdict.dtype == bool


def test_a_task_is_looked_up_by_its_whole_name():
    assert rule("Hopper-v4") is RULES["Hopper"] and rule("Hopper-v5") is RULES["Hopper"]
    assert rule("HumanoidStandup-v5") is never and rule("Humanoid-v5") is not never
    for other in (
        None,
        "",
        "Hopper",
        "hopper-medium",
        "hopper-v4",
        "Hopper-v3",  # not checked against its source
        "Hopper-v45",
        "Hopper-v5 ",
        "Hopper-v5\n",
        "MyHopper-v5",
        "antmaze",
        "antmaze-umaze-v2",
        "AntMaze_UMaze-v5",
        "Ant_UMaze-v4",
        "mujoco/Ant-v5",
    ):
        assert rule(other) is None, other


def test_the_choice_of_what_ends_an_episode():
    def chosen(choice, env_id, has_terminals):
        return choose(choice, env_id, has_terminals=has_terminals, dataset="mine")

    assert chosen("auto", "Hopper-v5", False) is RULES["Hopper"]
    assert chosen("auto", "AntMaze_UMaze-v5", True) is None
    assert chosen("auto", None, True) is None
    assert chosen("learned", "Hopper-v5", True) is None
    assert chosen("never", None, False) is never
    assert chosen("Walker2d-v4", "Hopper-v5", True) is RULES["Walker2d"]


@pytest.mark.parametrize(
    ("choice", "env_id", "message"),
    [
        ("auto", None, "mine: no termination rule is known for task None.*termination never if"),
        ("learned", "Hopper-v5", "mine: the data hold no terminal.*termination never if"),
        ("Hoper-v5", "Hopper-v5", "termination Hoper-v5: no such rule; give auto, learned, never or a task"),
    ],
)
def test_a_choice_that_cannot_be_is_said_in_one_line(choice, env_id, message):
    with pytest.raises(UserError, match=message) as caught:
        choose(choice, env_id, has_terminals=False, dataset="mine")
    assert "\n" not in str(caught.value)
