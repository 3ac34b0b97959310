"""Diffuser: the guided mean in closed form, exact conditions, warm starts, the closed loop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciding import first_plan

from jdp.diffusion import exact
from jdp.errors import UserError
from jdp.learning.plan_critics import Critic
from jdp.learning.plan_models import Model
from jdp.learning.scale import Affine, Scale
from jdp.planners import SamplingConfig, diffuser, make, parts
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.planners.trajectory import Previous, draw_plan, shifted
from jdp.types import Spec, bind

PRECISION, AIM = 3.0, 1.5
SAMPLING = SamplingConfig(sampler="heun", steps=30, warm_steps=0, sigma_max=80.0)


def quadratic(x, sigma):
    """The return `-(PRECISION / 2) |x - AIM|^2` of every entry."""
    return -0.5 * PRECISION * jnp.sum(jnp.square(x - AIM), axis=(1, 2))


def identity(dim):
    return Affine(jnp.zeros(dim), jnp.ones(dim))


@pytest.fixture
def exact_planner(monkeypatch):
    """Diffuser over the exact denoiser of a standard Gaussian, and a quadratic return as its value."""
    monkeypatch.setattr(
        parts, "model", lambda _: Model(None, None, lambda state, condition: exact.gaussian(0.0, 1.0))
    )
    monkeypatch.setattr(diffuser, "critic", lambda _: Critic(None, None, lambda s, c: bind(quadratic)))

    def planner(config, spec):
        made = diffuser.diffuser.__wrapped__(config, spec)
        scale = Scale(identity(spec.observation_dim), identity(spec.action_dim), identity(1))
        return made, diffuser.DiffuserPlannerState(scale, None, None, None)

    return planner


def test_the_guided_mean_is_that_of_the_tilted_gaussian(exact_planner):
    spec, batch = Spec(1, 1), 4096
    for steps, sampler in ((30, "heun"), (60, "euler")):
        sampling = SamplingConfig(sampler=sampler, steps=steps, warm_steps=0, sigma_max=80.0)
        config = DiffuserPlannerConfig(
            horizon=2, candidates=1, guidance=1.0, guidance_steps=1, sampling=sampling
        )
        planner, state = exact_planner(config, spec)
        now = jnp.full((batch, 1), 0.7)
        plan = first_plan(planner, jax.random.key(0), state, now, jnp.zeros((batch, 0)))
        following = np.asarray(plan.observation[:, 1, 0])
        mean, std = PRECISION * AIM / (1 + PRECISION), 1 / np.sqrt(1 + PRECISION)
        assert following.mean() == pytest.approx(mean, abs=0.03)
        assert following.std() == pytest.approx(std, rel=0.1)
        assert np.asarray(plan.observation[:, 0, 0]) == pytest.approx(0.7, abs=1e-6)


def test_of_the_candidates_the_most_valued_is_followed(exact_planner):
    spec = Spec(1, 1)
    values = {}
    for count in (1, 64):
        config = DiffuserPlannerConfig(horizon=2, candidates=count, guidance=0.0, sampling=SAMPLING)
        planner, state = exact_planner(config, spec)
        now = jnp.zeros((256, 1))
        plan = first_plan(planner, jax.random.key(1), state, now, jnp.zeros((256, 0)))
        x = jnp.concatenate([plan.observation, plan.action], axis=-1)
        clipped = np.abs(np.asarray(plan.action)) > 0.999  # actions leave the box; the value saw them before
        ok = ~clipped.any((1, 2))
        assert np.asarray(plan.value)[ok] == pytest.approx(
            np.asarray(quadratic(x, None))[ok], rel=1e-4, abs=1e-4
        )
        values[count] = float(plan.value.mean())
    assert values[64] > values[1] + 2.0


def test_the_goal_is_exact_and_only_in_the_last_row(exact_planner):
    spec = Spec(3, 1, goal=(0, 2))
    config = DiffuserPlannerConfig(horizon=4, candidates=1, replan_every=4, sampling=SAMPLING)
    planner, state = exact_planner(config, spec)
    now, goal = jnp.ones((8, 3)), jnp.tile(jnp.array([[2.0, -3.0]]), (8, 1))
    plan = first_plan(planner, jax.random.key(0), state, now, goal)
    assert np.asarray(plan.observation[:, 0]) == pytest.approx(1.0, abs=1e-6)
    last = np.asarray(plan.observation[:, -1])
    assert last[:, [0, 2]] == pytest.approx(np.tile([2.0, -3.0], (8, 1)), abs=1e-6)
    assert last[:, 1].std() > 0.3
    assert np.asarray(plan.observation[:, 1:-1]).std() > 0.5


def test_a_warm_start_at_the_highest_level_is_the_cold_start():
    known, mask = jnp.zeros((4, 6, 2)), jnp.zeros((4, 6, 2), bool).at[:, 0].set(True)
    sigmas = jnp.geomspace(20.0, 0.02, 8)
    schedule = jnp.append(sigmas, 0.0)
    plan = jax.random.normal(jax.random.key(3), known.shape)
    found = []
    for config, planned in (
        (SamplingConfig(steps=8, warm_steps=8), True),
        (SamplingConfig(steps=8, warm_steps=8), False),
        (SamplingConfig(steps=8, warm_steps=3), True),
    ):
        draw = jax.jit(
            lambda key, denoiser, previous, c=config: draw_plan(
                key, denoiser, known, mask, previous, c, schedule
            )
        )
        previous = Previous(plan, jnp.full(4, planned))
        found.append(np.asarray(draw(jax.random.key(0), exact.gaussian(0.0, 1.0), previous)))
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert np.abs(found[2] - found[1]).max() > 0.1
    # From a low level it stays near the plan that it began from.
    near = np.abs(found[2] - np.asarray(plan))[:, 1:].mean()
    assert near < 0.2 < np.abs(found[1] - np.asarray(plan))[:, 1:].mean()


def test_shifting_a_plan_interpolates_and_ends_in_its_last_row():
    plan = jnp.arange(5.0)[None, :, None] ** 2
    assert np.asarray(shifted(plan, 1.0))[0, :, 0].tolist() == [1, 4, 9, 16, 16]
    assert np.asarray(shifted(plan, 0.5))[0, :, 0].tolist() == [0.5, 2.5, 6.5, 12.5, 16]


def test_plans_are_followed_for_their_time_and_nothing_compiles_twice(exact_planner):
    spec = Spec(1, 1)
    config = DiffuserPlannerConfig(
        horizon=4, candidates=2, replan_every=3, sampling=SamplingConfig(steps=3, warm_steps=2)
    )
    planner, state = exact_planner(config, spec)
    policy = planner.policy
    act, now, goal = jax.jit(policy.act), jnp.zeros((2, 1)), jnp.zeros((2, 0))
    carry, plans = jax.jit(policy.init)(now), []
    for step in range(7):
        carry, decision = act(jax.random.key(step), state, carry, now, goal)
        plans.append(np.asarray(decision.plan.action))
        assert np.asarray(decision.action) == pytest.approx(plans[-1][:, step % 3])
        assert (np.asarray(decision.decided) == (step % 3 == 0)).all()
        np.testing.assert_array_equal(decision.value, decision.plan.value)
    assert act._cache_size() == 1
    same = [np.array_equal(a, b) for a, b in itertools.pairwise(plans)]
    assert same == [True, True, False, True, True, False]


def test_settings_that_cannot_work_are_refused_in_one_line():
    for settings, word in (
        ({"horizon": 33, "stride": 8}, "not divisible"),
        ({"horizon": 8, "replan_every": 9}, "replan_every"),
    ):
        with pytest.raises(UserError, match=word) as caught:
            DiffuserPlannerConfig(**settings)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match="sampler"):
        SamplingConfig(sampler="heunn")
    with pytest.raises(UserError, match="no planner"):
        make(SAMPLING, Spec(1, 1))
