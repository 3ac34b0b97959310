"""Decision Diffuser: what the condition does to plans, with exact denoisers and with a tiny network."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciding import due, first_plan
from two_rooms import counted

from jdp.data.segments import SegmentRows
from jdp.diffusion import exact
from jdp.errors import UserError
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_models import Model, ModelConfig
from jdp.learning.scale import Affine, Scale, Span
from jdp.networks import NetworkConfig
from jdp.planners import parts
from jdp.planners.decision_diffuser import DecisionDiffuserConfig, decision_diffuser
from jdp.planners.trajectory import SamplingConfig
from jdp.types import Segments, Spec, bind, expand

T, B = 4, 4096
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(T, T))
COVARIANCE, MEAN = ROOT @ ROOT.T / T + 0.2 * np.eye(T), np.array([0.2, -0.3, 0.4, 0.1])
RETURN, NOISE = np.array([0.5, 1.0, -1.0, 0.8]), 0.5  # the return is RETURN . plan + NOISE n
PRESENT = 0.7
MOVES = np.array([0.0, 0.5, -1.0, 0.25])  # of the mean, in another family, by a return of 1
SPEC = Spec(1, 1)
PLAIN = Affine(jnp.zeros(1), jnp.ones(1))
SPAN = Span(jnp.float32(-3), jnp.float32(3))
CONFIG = DecisionDiffuserConfig(
    horizon=T,
    inverse=InverseConfig(hidden=(8,)),
    sampling=SamplingConfig("heun", steps=24, warm_steps=0, sigma_max=80.0, temperature=0.5),
)


def f32(x):
    return jnp.asarray(x, jnp.float32)


def joint():
    """Mean and covariance of a plan and its return, `[T + 1]`."""
    cross = COVARIANCE @ RETURN
    spread = np.block([[COVARIANCE, cross[:, None]], [cross[None], RETURN @ cross + NOISE**2]])
    return np.append(MEAN, RETURN @ MEAN), spread


def given(known, values):
    """Mean and covariance of the rest of `joint`."""
    mean, spread = joint()
    rest = [i for i in range(T) if i not in known]
    gain = spread[np.ix_(rest, known)] @ np.linalg.inv(spread[np.ix_(known, known)])
    return mean[rest] + gain @ (values - mean[known]), spread[np.ix_(rest, rest)] - gain @ spread[
        np.ix_(known, rest)
    ]


def _exact(whole, plans, condition, x, sigma):
    """Of a plan given its return, which is an entry without noise; or of a plan, without the flag."""
    levels = jnp.broadcast_to(expand(sigma, x), x.shape)[..., 0]
    told = jnp.concatenate([x[..., 0], condition[:, :1]], axis=1)
    told = whole(told, jnp.concatenate([levels, jnp.zeros_like(condition[:, :1])], axis=1))[:, :T]
    return jnp.where(condition[:, 1:] == 1, told, plans(x[..., 0], levels))[..., None]


def _moved(plans, condition, x, sigma):
    """Of plans whose mean moves with the condition; `E[x0 | x]` of a Gaussian is affine in its mean."""
    levels = jnp.broadcast_to(expand(sigma, x), x.shape)[..., 0]
    shift = condition[:, :1] * f32(MOVES)[None]
    return (shift + plans(x[..., 0] - shift, levels))[..., None]


def model_of(denoiser):
    def make(config):
        del config
        return Model(
            init=lambda key, x0, condition: jnp.zeros(()),
            update=lambda key, state, x0, condition, known, weight: (
                state,
                {"condition": condition, "known": known, "weight": weight},
            ),
            denoiser=denoiser,
        )

    return make


def planner_with(denoiser, config, spec=SPEC):
    """The planner with another model, and its state in coordinates where nothing is scaled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "model", model_of(denoiser))
        planner = decision_diffuser.__wrapped__(config, spec)
    zeros = np.zeros((8, spec.observation_dim), np.float32)
    data = SegmentRows(zeros, zeros[:, :1], *zeros.T[[0, 0, 0]], *[np.zeros(1, int)] * 3)
    # The weights of the inverse model do not matter here, and so need no compiled `init`.
    shapes = jax.eval_shape(planner.learner.init, jax.random.key(0), data)
    state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), shapes)
    plain = Affine(jnp.zeros(spec.observation_dim), jnp.ones(spec.observation_dim))
    return planner, state._replace(scale=Scale(plain, PLAIN, PLAIN), span=SPAN)


def planned(denoiser, config, wishes, batch=2):
    """`[B, T]` plans from `PRESENT` for each return asked for; the same noise, and one program."""
    planner, state = planner_with(denoiser, config)
    here, goal, found = jnp.full((batch, 1), PRESENT), jnp.zeros((batch, 0)), []
    for wish in wishes:
        # Of a dataset whose returns span 0 to the wish over the target's share.
        state = state._replace(span=Span(jnp.float32(0), jnp.float32(wish / config.target)))
        plan = first_plan(planner, jax.random.key(1), state, here, goal)
        found.append(np.asarray(plan.observation[..., 0]))
    return [plans.astype(np.float64) for plans in found]


def exact_denoiser(state, condition):
    whole, plans = exact.correlated_gaussian(*map(f32, joint())), exact.correlated_gaussian(MEAN, COVARIANCE)
    return bind(_exact, whole, plans, condition)


def moved_denoiser(state, condition):
    return bind(_moved, exact.correlated_gaussian(f32(MEAN), COVARIANCE), condition)


def test_plans_are_draws_of_the_conditional_gaussian_at_half_its_spread():
    """And what is asked for moves their mean as it does the Gaussian's."""
    wishes = (0.5, 2.4)
    plans = planned(exact_denoiser, replace(CONFIG, guidance=1.0), wishes, B)
    means = []
    for wish, found in zip(wishes, plans, strict=True):
        mean, covariance = given([0, T], np.array([PRESENT, wish]))
        np.testing.assert_allclose(found[:, 0], PRESENT, atol=1e-6)
        np.testing.assert_allclose(found[:, 1:].mean(0), mean, atol=0.05)
        np.testing.assert_allclose(found[:, 1:].std(0), 0.5 * np.sqrt(np.diag(covariance)), rtol=0.06)
        means.append(mean)
    moved = plans[1] - plans[0]
    np.testing.assert_allclose(moved[:, 1:], np.tile(means[1] - means[0], (B, 1)), rtol=0.03)


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_the_weight_multiplies_what_the_condition_moves(weight):
    """All in one call of twice the batch; the flag of the other half is 0."""
    low, high = planned(moved_denoiser, replace(CONFIG, guidance=weight), (1.0, 2.0))
    # Of rows 1 to 3 given row 0, whose mean does not move.
    np.testing.assert_allclose((high - low)[:, 1:], weight * np.tile(MOVES[1:], (2, 1)), rtol=0.03)


def test_a_warm_start_at_the_highest_level_is_the_cold_start():
    config = replace(CONFIG, replan_every=2, sampling=replace(CONFIG.sampling, warm_steps=24))
    planner, state = planner_with(moved_denoiser, config)
    here, goal = jnp.full((3, 1), PRESENT), jnp.zeros((3, 0))
    act, traces = counted(planner.policy.act)
    cold = planner.policy.init(here)
    warm, found = act(jax.random.key(1), state, cold, here, goal)
    assert warm.memory.planned.all() and not cold.memory.planned.any()
    warm = due(warm._replace(memory=warm.memory._replace(plan=5 * jnp.ones_like(warm.memory.plan))))
    again = act(jax.random.key(1), state, warm, here, goal)[1]
    np.testing.assert_allclose(again.plan.observation, found.plan.observation, atol=1e-6)
    assert len(traces) == 1


def test_policy_in_closed_loop_compiles_once():
    planner, state = planner_with(moved_denoiser, replace(CONFIG, replan_every=2))
    policy = planner.policy
    act, traces = counted(policy.act)
    here, carry = jnp.ones((3, 1)), policy.init(jnp.ones((3, 1)))
    plans = []
    for step in range(4):
        here = here + 1
        carry, decision = act(jax.random.key(step), state, carry, here, jnp.zeros((3, 0)))
        plans.append(np.asarray(decision.plan.observation))
        assert np.abs(decision.action).max() <= 1
    assert len(traces) == 1
    for step, seen in zip(range(4), [2, 2, 4, 4], strict=True):  # planned at steps 0 and 2
        np.testing.assert_allclose(plans[step][:, 0], seen, atol=1e-6)


@pytest.mark.parametrize("goals", [False, True])
def test_a_quarter_of_the_conditions_is_not_shown(goals):
    spec, n, length = Spec(2, 1, goal=(1,) if goals else ()), 4000, T
    planner, state = planner_with(moved_denoiser, replace(CONFIG, next_weight=10.0), spec)
    state = state._replace(
        scale=Scale(Affine(f32([1, 2]), f32([1, 4])), PLAIN, Affine(f32([10.0]), f32([5.0])))
    )
    observation, zeros = jnp.zeros((n, length, 2)), jnp.zeros((n, length))
    wish = jax.random.normal(jax.random.key(0), (n, 1))
    value = jnp.broadcast_to(wish, (n, length))
    goal = wish if goals else wish[:, :0]
    batch = Segments(observation, zeros[..., None], zeros, zeros, value, goal, jnp.zeros(n, jnp.int32))
    _, metrics = jax.jit(planner.learner.update)(jax.random.key(1), state, batch)
    condition = np.asarray(metrics["condition"])
    shown = condition[:, 1] == 1
    assert shown.mean() == pytest.approx(0.75, abs=0.02)
    assert (condition[~shown] == 0).all()
    expected = (np.asarray(wish) - (2 if goals else 10)) / (4 if goals else 5)
    np.testing.assert_allclose(condition[shown, 0], expected[shown, 0], rtol=1e-5)
    known = np.asarray(metrics["known"][0])  # the present and nothing else: no goal in the last row
    assert known[0].all() and not known[1:].any()
    np.testing.assert_array_equal(metrics["weight"][0, :, 0], [1, 10, 1, 1])


def walks(key, count, length):
    """From 0 at a speed of the walk's own; entry 0 is where it is, and the goal where it ends."""
    speed = jax.random.uniform(key, (count, 1), minval=-1, maxval=1)
    where = speed * jnp.arange(float(length))[None] / (length - 1)
    zeros, action = jnp.zeros((count, length)), jnp.broadcast_to(speed[..., None], (count, length, 1))
    far = jnp.full(count, length)
    return Segments(where[..., None], action, zeros, zeros, zeros, where[:, -1:], far)


def test_a_network_learns_to_go_where_the_goal_says():
    steps, spec = 400, Spec(1, 1, goal=(0,))
    config = DecisionDiffuserConfig(
        horizon=4,
        guidance=1.2,
        model=ModelConfig(NetworkConfig("mixer", 32, 1), learning_rate=3e-3, steps=steps),
        inverse=InverseConfig(hidden=(32,), steps=steps),
        sampling=SamplingConfig(steps=10, temperature=0.5),
    )
    planner = decision_diffuser(config, spec)
    assert planner is decision_diffuser(config, spec)
    data = walks(jax.random.key(0), 512, 4)
    flat = [np.asarray(x).reshape(-1, *x.shape[2:]) for x in data[:5]]
    state = jax.jit(planner.learner.init)(jax.random.key(1), SegmentRows(*flat, *[np.zeros(1, int)] * 3))

    def update(state, key):
        draw, learn = jax.random.split(key)
        return planner.learner.update(learn, state, walks(draw, 64, 4))

    keys = jax.random.split(jax.random.key(2), steps)
    state, _ = jax.jit(lambda state: jax.lax.scan(update, state, keys))(state)
    goal = jnp.linspace(-0.8, 0.8, 9)[:, None]
    here = jnp.zeros((9, 1))
    decision = jax.jit(planner.policy.act)(jax.random.key(3), state, planner.policy.init(here), here, goal)[1]
    plan = decision.plan
    np.testing.assert_allclose(plan.observation[:, 0], 0, atol=1e-6)
    error = np.asarray(plan.observation[:, -1] - goal)
    assert np.sqrt(np.mean(error**2)) < 0.15  # the spread of goals is .58
    assert np.corrcoef(decision.action[:, 0], goal[:, 0])[0, 1] > 0.95


def test_settings_that_do_not_fit_are_refused_in_one_line():
    with pytest.raises(UserError) as caught:
        DecisionDiffuserConfig(horizon=32, stride=5)
    assert "32 steps is not divisible" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="replan_every"):
        DecisionDiffuserConfig(horizon=4, replan_every=5)


def test_goals_in_hindsight_lie_within_the_reach():
    config = DecisionDiffuserConfig(horizon=30, stride=15, reach=1.5)
    assert config.hindsight == (0.0, 1.0, 0.0, 45)
