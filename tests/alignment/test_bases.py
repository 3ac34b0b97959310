"""A trained policy and a planner as models to align: what is drawn, what counts, and the way back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import registry
from jdp.alignment import students
from jdp.alignment.bases import base_of, judged_by, of_plans, stacked
from jdp.alignment.chain import DrawnConfig, density, drawn, sample
from jdp.data.normalise import Affine
from jdp.errors import UserError
from jdp.finetune.chain import moves
from jdp.learning.averaged import Averaged
from jdp.learning.plan_models import Model, ModelConfig
from jdp.learning.scale import Scale
from jdp.networks import NetworkConfig
from jdp.planners import SamplingConfig
from jdp.planners.diffuser import DiffuserPlannerConfig, DiffuserPlannerState, parts_of
from jdp.policies.chunks import CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.types import Spec, bind

KEY = jax.random.key(0)
SPEC = Spec(3, 2, goal=(0, 1))
AFFINE = Affine(jnp.array([1.0, -1.0, 2.0]), jnp.array([2.0, 0.5, 3.0]))
SEEN = jnp.array([[0.5, 1.0, -2.0], [2.0, 0.0, 1.0]]), jnp.array([[1.0, 2.0], [-1.0, 0.5]])
POLICY = DiffusionPolicyConfig(features=8, blocks=1, chunk=3, execute=2, sampling_steps=2)
PLANNER = DiffuserPlannerConfig(horizon=4, sampling=SamplingConfig(steps=2, warm_steps=0))

NETWORK = dataclasses.replace(
    PLANNER,
    horizon=8,
    model=ModelConfig(network=NetworkConfig(kind="residual_unet", features=8, blocks=1)),
)


def halved(state, condition):
    """A denoiser of plans without a network."""
    del condition
    return bind(lambda share, x, sigma: share * x, state.ema["share"])


def averaged(params):
    return Averaged(params, params, (), jnp.int32(0))


@pytest.fixture(scope="module")
def policy():
    return base_of(POLICY, SPEC, CloneState(averaged({"share": jnp.float32(0.5)}), AFFINE))


@pytest.fixture(scope="module")
def planner():
    level = dataclasses.replace(parts_of(PLANNER, SPEC).level, model=Model(None, None, halved))  # type: ignore[arg-type]
    scale = Scale(AFFINE, Affine(jnp.zeros(2), jnp.full(2, 0.5)), Affine(jnp.zeros(1), jnp.ones(1)))
    state = DiffuserPlannerState(scale, averaged({"share": jnp.float32(0.5)}), None, None)
    return of_plans(level, state)


def test_rewards_of_a_policy_see_the_units_of_the_task(policy):
    condition = policy.condition(*SEEN)
    chunk = jnp.linspace(-1.5, 1.5, 12).reshape(2, 6)
    observation, action, goal = policy.units(chunk, condition)
    np.testing.assert_allclose(observation, SEEN[0], atol=1e-6)
    np.testing.assert_allclose(goal, SEEN[1], atol=1e-6)
    np.testing.assert_allclose(action, np.clip(chunk.reshape(2, 3, 2)[:, :2], -1, 1), atol=1e-6)


def test_a_state_with_other_parameters_is_the_model_of_these(policy, planner):
    for base in (policy, planner):
        other = jax.tree.map(lambda x: x + 1, base.params)
        both = stacked(base, jax.tree.map(lambda *x: jnp.stack(x), base.params, other))
        second = jax.tree.map(lambda x: x[1], both)
        averages = second.actor if base is policy else second.model
        assert averages.params == averages.ema == other
    again = base_of(POLICY, SPEC, policy.replaced(policy.params))
    assert again.model == policy.model and hash(again.model) == hash(policy.model)


def test_a_plan_holds_what_is_given_and_its_density_knows_nothing_of_it(planner):
    condition, config = planner.condition(*SEEN), DrawnConfig()
    states = sample(KEY, planner.params, condition, config, planner.model)
    observation, action, goal = planner.units(states[-1], condition)
    np.testing.assert_allclose(observation[:, 0], SEEN[0], atol=1e-5)
    np.testing.assert_allclose(observation[:, -1, :2], SEEN[1], atol=1e-5)
    np.testing.assert_allclose(goal, SEEN[1], atol=1e-5)
    assert action.shape == (2, 4, 2) and np.abs(action).max() <= 1
    held = ~planner.model.counts()
    assert held.sum() == 3 + 2 and planner.model.size == 4 * 5 - 5
    rows = jax.tree.map(lambda x: x[0], moves(states, condition))
    found = drawn(planner.params, rows, config, planner.model)
    apart = rows.following + jnp.where(held[None], 7.0, 0.0)
    same, other = (density(found, x, config, planner.model) for x in (rows.following, apart))
    np.testing.assert_allclose(same, other)
    free = rows.following + jnp.where(held[None], 0.0, 0.1)
    assert (density(found, free, config, planner.model) < same).all()


def test_what_cannot_be_aligned_is_said():
    with pytest.raises(UserError, match=r"of no model that can be aligned: .*diffusion_policy.*diffuser"):
        base_of(DrawnConfig(), SPEC, None)
    with pytest.raises(UserError, match="sees 2 observations"):
        base_of(DiffusionPolicyConfig(history=2), SPEC, None)
    flow_map = DiffuserPlannerConfig(
        model=ModelConfig(formulation="consistency"), sampling=SamplingConfig(sampler="consistency")
    )
    with pytest.raises(UserError, match="is a flow map"):
        base_of(flow_map, SPEC, None)


def test_a_student_of_runs_is_pulled_to_the_teacher_of_its_condition(planner):
    other = {"share": jnp.float32(-1.0)}
    condition = planner.condition(*SEEN)
    student, given, told = students.student(planner, [planner.params, other], condition)
    assert not told  # this network embeds no condition
    assert given.rows.shape == (4, 5 + 2)
    x, sigma = jnp.ones((4, 4, 5)), jnp.ones(4)
    taught = given.judge(given.rows)(x, sigma)
    for k, params in enumerate((planner.params, other)):
        own = planner.model.denoiser(params, condition)(x[:2], sigma[:2])
        np.testing.assert_allclose(taught[k::2], own, atol=1e-5)
    alike = student.model.denoiser(planner.params, given.rows)(x, sigma)
    np.testing.assert_allclose(alike[::2], alike[1::2], atol=1e-6)
    np.testing.assert_allclose(student.units(x, given.rows)[2][::2], SEEN[1], atol=1e-5)


def test_a_student_that_is_told_its_teacher_is_a_network_of_the_teachers_shape():
    """A wide network and condition, or the narrow one with a row in its bias: the same plans."""
    parts = parts_of(NETWORK, SPEC)
    scale = Scale(AFFINE, Affine(jnp.zeros(2), jnp.full(2, 0.5)), Affine(jnp.zeros(1), jnp.ones(1)))
    level = parts.level
    params = level.model.init(KEY, jnp.zeros((2, level.rows, level.channels)), jnp.zeros((2, 0))).params
    base = of_plans(level, DiffuserPlannerState(scale, averaged(params), None, None))
    student, given, told = students.student(base, [params, params], base.condition(*SEEN))
    assert told == 2
    moved = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), student.params)
    x, sigma = jax.random.normal(KEY, (4, level.rows, level.channels)), jnp.ones(4)

    @jax.jit
    def plan(params, condition):
        return base.model.denoiser(params, condition)(x, sigma)

    wide, before = plan(moved, given.rows), plan(student.params, given.rows)
    for k in range(2):
        narrow = students.told(moved, 2, k)
        assert jax.tree.map(jnp.shape, narrow) == jax.tree.map(jnp.shape, params)
        np.testing.assert_allclose(wide[k::2], plan(narrow, given.rows[:, :5])[k::2], atol=1e-5)
    assert np.abs(wide - plan(students.told(moved, 2, 0), given.rows[:, :5]))[1::2].max() > 1e-3
    np.testing.assert_allclose(before, plan(params, given.rows[:, :5]), atol=1e-6)  # it begins as the base


def test_a_judge_is_equal_to_another_of_the_same_reward(policy):
    def reward(observation, action, goal):
        return jnp.sum(action, axis=(1, 2)) + goal[:, 0] + observation[:, 0]

    one, two = (judged_by(policy, reward) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    x0, condition = jnp.full((2, 6), 0.25), policy.condition(*SEEN)
    np.testing.assert_allclose(one(x0, condition), 1.0 + SEEN[1][:, 0] + SEEN[0][:, 0], atol=1e-6)


@jax.jit
def both_ways(params):
    """What the policy does, and a sample of its base by the same key."""
    method, (observation, goal) = registry.make("policy", POLICY, SPEC), SEEN
    base = base_of(POLICY, SPEC, CloneState(averaged(params), AFFINE))
    carry = method.policy.init(observation)
    acted = method.policy.act(KEY, base.replaced(params), carry, observation, goal)[1].action
    return acted, base.model.sample(KEY, params, base.condition(observation, goal))


def test_samples_are_what_the_policy_does():
    params = POLICY.network().init(KEY, jnp.zeros((1, 6)), jnp.zeros(1), jnp.zeros((1, 5)))
    acted, x0 = both_ways(params)
    np.testing.assert_allclose(acted, x0[:, :2], atol=1e-6)
