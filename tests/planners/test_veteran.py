"""Diffusion Veteran: the critic ranks plans, the best is followed, and who knows of the goal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciding import first_plan
from two_rooms import counted

from jdp.data.segments import FAR, SegmentRows
from jdp.errors import UserError
from jdp.learning.candidates import repeated
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_critics import CriticConfig, critic
from jdp.learning.plan_models import Model, ModelConfig, model
from jdp.learning.scale import Affine, Scale, Span, fit_scale, fit_span
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import parts
from jdp.planners import veteran as module
from jdp.planners.trajectory import SamplingConfig, draw_plan, nothing, plan_schedule
from jdp.planners.veteran import VeteranConfig, veteran
from jdp.types import Segments, Spec, named_keys

T, DIM, B, N = 4, 2, 3, 6
SPEC, MAZE = Spec(DIM, 1), Spec(DIM, 1, goal=(0,))
PLAIN = Affine(jnp.zeros(1), jnp.ones(1))
TINY = {
    "horizon": T,
    "replan_every": 2,
    "candidates": N,
    "model": ModelConfig(NetworkConfig("mixer", 16, 1)),
    "critic": CriticConfig(ValueNetworkConfig(features=8, blocks=1), noisy=False),
    "inverse": InverseConfig(kind="diffusion", hidden=(16,), sampling_steps=2),
    "sampling": SamplingConfig(steps=4, warm_steps=0),
}


def rows(spec):
    observation = np.random.default_rng(0).normal([1, -2], [2, 0.5], (64, DIM)).astype(np.float32)
    value = observation.sum(1)
    return SegmentRows(observation, value[:, None] * 0.1, value, 0 * value, value, *[np.zeros(1, int)] * 3)


def untrained(planner, spec):
    """A state of random weights, for which nothing need be compiled; some layers begin at 0."""
    rng = np.random.default_rng(9)

    def fill(leaf):
        return jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    state = jax.tree.map(fill, jax.eval_shape(planner.learner.init, jax.random.key(0), rows(spec)))
    return state._replace(scale=fit_scale(rows(spec)), span=fit_span(rows(spec)))


@pytest.fixture(scope="module")
def maze():
    """By who knows of the goal: the planner of untrained networks, and its state."""
    made = {}
    for goals in ("condition", "last_row", "critic"):
        planner = veteran(VeteranConfig(**TINY, goals=goals), MAZE)
        made[goals] = planner, untrained(planner, MAZE)
    return made


def plan_of(made, goal, here=None):
    planner, state = made
    here = jnp.asarray(np.arange(B * DIM).reshape(B, DIM), jnp.float32) if here is None else here
    return first_plan(planner, jax.random.key(5), state, here, jnp.full((B, 1), goal)), here


def test_the_best_of_the_candidates_is_followed(maze):
    _, state = maze["critic"]
    config = VeteranConfig(**TINY, goals="critic")
    found, here = plan_of(maze["critic"], 1.5)
    goal = state.scale.goal(jnp.full((B, 1), 1.5), MAZE)

    def draws(state):
        known = jnp.zeros((B, T, DIM)).at[:, 0].set(state.scale.observation(here))
        mask = jnp.zeros((B, T, DIM), bool).at[:, 0].set(True)
        known, mask, previous = repeated((known, mask, nothing(known)), N)
        denoiser = model(config.model).denoiser(state.model, jnp.zeros((B * N, 0)))
        schedule = plan_schedule(config.sampling, config.model.formulation)
        key = named_keys(jax.random.key(5), "plan", "act")["plan"]
        x0 = draw_plan(key, denoiser, known, mask, previous, config.sampling, schedule)
        value = critic(config.critic).value(state.critic, jnp.repeat(goal, N, axis=0))
        return x0, value(x0, jnp.zeros(B * N))

    x0, score = (np.asarray(x).reshape(B, N, *x.shape[1:]) for x in jax.jit(draws)(state))
    assert score.std(1).min() > 1e-3
    best = score.argmax(1)
    expected = state.scale.observation.inverse(jnp.asarray(x0[np.arange(B), best]))
    np.testing.assert_allclose(found.observation, expected, atol=1e-5)
    np.testing.assert_allclose(found.value, T * score.max(1), rtol=1e-4)  # minus the steps to the goal


@pytest.mark.parametrize("goals", ["condition", "last_row", "critic"])
def test_the_present_is_exact_and_the_goal_where_it_is_given(maze, goals):
    plan, here = plan_of(maze[goals], 1.5)
    np.testing.assert_allclose(plan.observation[:, 0], here, atol=1e-6)
    arrives = np.allclose(plan.observation[:, -1, 0], 1.5, atol=1e-6)
    assert arrives == (goals == "last_row")
    assert plan.action.shape == (B, 0, 1)


def test_plans_that_do_not_know_the_goal_are_judged_by_it(maze):
    """One candidate of the same key, so that the critic has no choice."""
    for goals in ("critic", "condition"):
        _, state = maze[goals]
        alone = veteran(VeteranConfig(**{**TINY, "candidates": 1}, goals=goals), MAZE)
        plans = [plan_of((alone, state), goal)[0] for goal in (1.5, -1.0)]
        moved = np.abs(plans[0].observation - plans[1].observation).max()
        assert (moved == 0) if goals == "critic" else (moved > 1e-3)
        assert np.abs(plans[0].value - plans[1].value).min() > 1e-4


def recorded(metrics_of):
    """A trainable thing that learns nothing and says what it was given."""

    def make(config):
        del config
        return Model(
            init=lambda key, x0, condition: jnp.zeros(()),
            update=lambda key, state, *args: (state, metrics_of(*args)),
            denoiser=lambda state, condition: None,
        )

    return make


def lessons(config, spec, batch):
    """What the denoiser and the critic are taught from `batch`, with values that span -3 to 5."""
    with pytest.MonkeyPatch.context() as patch:
        names = ("x0", "condition", "known")
        patch.setattr(parts, "model", recorded(lambda *a: dict(zip((*names, "weight"), a, strict=True))))
        patch.setattr(module, "critic", recorded(lambda *a: {"goal": a[1], "target": a[3]}))
        planner = veteran.__wrapped__(config, spec)
    state = untrained(planner, spec)
    wide = Affine(jnp.zeros(DIM), jnp.full(DIM, 2.0))
    value = Affine(jnp.array([1.0]), jnp.array([2.0]))
    span = Span(jnp.float32(-3), jnp.float32(5))
    state = state._replace(scale=Scale(wide, PLAIN, value), span=span)
    return jax.device_get(jax.jit(planner.learner.update)(jax.random.key(1), state, batch)[1])


def batch_of(values, goals, distance):
    n = len(values)
    zeros = jnp.zeros((n, T))
    value = jnp.asarray(np.asarray(values)[:, None] + np.arange(T)[None], jnp.float32)  # row 0 counts
    goal = jnp.asarray(goals, jnp.float32).reshape(n, -1)
    action, observation = zeros[..., None], jnp.ones((n, T, DIM))
    return Segments(observation, action, zeros, zeros, value, goal, jnp.asarray(distance, jnp.int32))


def test_plans_of_high_return_weigh_more_and_the_critic_learns_the_return():
    found = lessons(VeteranConfig(**TINY), SPEC, batch_of([-3, 1, 5], np.zeros((3, 0)), [FAR] * 3))
    np.testing.assert_allclose(found["weight"][:, 0, 0], np.exp(2 * (np.array([-1, 0, 1]) - 1)), rtol=1e-5)
    np.testing.assert_allclose(found["target"], [-2, 0, 2], rtol=1e-5)
    alike = lessons(
        VeteranConfig(**TINY, weighting=0.0), SPEC, batch_of([-3, 5], np.zeros((2, 0)), [FAR] * 2)
    )
    np.testing.assert_array_equal(alike["weight"], 1)


@pytest.mark.parametrize("goals", ["condition", "last_row", "critic"])
def test_on_tasks_with_goals_the_critic_learns_the_steps_to_go(goals):
    config = VeteranConfig(**TINY, goals=goals, reach=2.5)
    assert config.hindsight == (0.0, 0.9, 0.1, 10)
    found = lessons(config, MAZE, batch_of([0, 0, 0, 0], [[2], [4], [6], [8]], [1, T, 10, FAR]))
    np.testing.assert_allclose(found["target"] * T, [-1, -T, -10, -10], rtol=1e-6)
    np.testing.assert_allclose(found["goal"], [[1], [2], [3], [4]])
    if goals == "condition":
        np.testing.assert_array_equal(found["condition"], found["goal"])
        np.testing.assert_array_equal(found["weight"].ravel(), [1, 1, 1, 0])  # another episode's says nothing
    else:
        assert found["condition"].shape == (4, 0)
        np.testing.assert_array_equal(found["weight"], 1)
    known = np.zeros((T, DIM), bool)
    known[0] = True
    known[-1, 0] = goals == "last_row"
    np.testing.assert_array_equal(found["known"][0], known)


def spearman(a, b):
    return np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]


@pytest.mark.parametrize("kind", ["pooled", "transformer"])
def test_the_critic_ranks_held_out_plans_as_their_returns_do(kind):
    """The return is where the plan ends, less what it costs to go there, so no row tells it alone."""
    steps = 200
    net = ValueNetworkConfig(kind, 32 if kind == "transformer" else 16, 1)
    judge = critic(CriticConfig(net, learning_rate=3e-3, steps=steps, noisy=False))
    none = jnp.zeros((128, 0))

    def plans(key, count):
        x = jnp.cumsum(jax.random.normal(key, (count, T, DIM)), axis=1) / 2
        cost = jnp.sum(jnp.square(jnp.diff(x[..., 0], axis=1)), axis=1)
        return x, x[:, -1, 1] - cost

    def update(state, key):
        draw, learn = jax.random.split(key)
        x, target = plans(draw, 128)
        return judge.update(learn, state, x, none, jnp.zeros((1, T, DIM), bool), target)

    state = jax.jit(judge.init)(jax.random.key(0), jnp.zeros((1, T, DIM)), none[:1])
    keys = jax.random.split(jax.random.key(1), steps)
    state, _ = jax.jit(lambda state: jax.lax.scan(update, state, keys))(state)
    x, target = plans(jax.random.key(2), 128)
    assert spearman(judge.value(state, none)(x, jnp.zeros(128)), target) > 0.9


def test_policy_in_closed_loop_compiles_once(maze):
    planner, state = maze["condition"]
    policy = planner.policy
    act, traces = counted(policy.act)
    here = jnp.ones((B, DIM))
    carry = policy.init(here)
    for step in range(4):
        carry, decision = act(jax.random.key(step), state, carry, here, jnp.ones((B, 1)))
        assert decision.action.shape == (B, 1) and np.abs(decision.action).max() <= 1
    assert len(traces) == 1
    assert (carry.elapsed == 2).all() and (carry.past.elapsed == 3).all()
    assert planner is veteran(VeteranConfig(**TINY, goals="condition"), MAZE)


def test_a_horizon_that_the_stride_does_not_divide_is_refused_in_one_line():
    with pytest.raises(UserError) as caught:
        VeteranConfig(horizon=32, stride=15)
    assert "not divisible" in str(caught.value) and "\n" not in str(caught.value)


def test_offsets_hold_consecutive_steps_and_the_rows_of_the_plan():
    planner = veteran(VeteranConfig(**{**TINY, "horizon": 12}, stride=3), MAZE)
    assert planner.learner.draws.offsets == (0, 1, 2, 3, 6, 9)
