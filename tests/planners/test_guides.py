"""A user's guide steers what planners draw, in closed loop; and the chains that they draw by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciding import first_plan, row_shapes

from jdp import registry
from jdp.diffusion import exact
from jdp.errors import UserError
from jdp.learning.plan_models import Model, ModelConfig
from jdp.learning.scale import Affine, Scale
from jdp.planners import SamplingConfig, cost_guide, denoising, diffuser, make, parts, plan_schedule
from jdp.planners import hierarchical as two_levels
from jdp.planners.diffuser import DiffuserPlannerConfig, DiffuserPlannerState
from jdp.planners.hierarchical import HierarchicalConfig
from jdp.types import Spec, bind, expand

T, RADIUS = 9, 1.0
TIME = np.linspace(0, 1, T)
SMOOTH = np.exp(-0.5 * np.square((TIME[:, None] - TIME[None]) / 0.4)) + 1e-3 * np.eye(T)  # of x and of y
MAZE = Spec(2, 1, goal=(0, 1))
SCALE = Scale(
    Affine(jnp.array([1.0, -1.0]), jnp.array([2.0, 2.0])), Affine(jnp.zeros(1), jnp.full(1, 0.5)),
    Affine(jnp.zeros(1), jnp.ones(1)),
)  # fmt: skip
MIDDLE = jnp.array([1.0, -1.0])  # where straight ways lead through, in the units of the task
SAMPLING = SamplingConfig(steps=20, warm_steps=0, sigma_max=40.0)


def _plans(curve, x, sigma):
    """Smooth curves of both coordinates, and actions that are independent of them."""
    levels = jnp.broadcast_to(expand(sigma, x), x.shape)
    xy = jnp.stack([curve(x[..., i], levels[..., i]) for i in range(2)], axis=-1)
    rest = x[..., 2:] / (1 + jnp.square(levels[..., 2:]))
    return jnp.concatenate([xy, rest], axis=-1)


def planner(monkeypatch, config, spec, guide):
    """Diffuser over the exact denoiser of smooth curves."""
    whole = bind(_plans, exact.correlated_gaussian(np.zeros(T), SMOOTH))
    monkeypatch.setattr(parts, "model", lambda _: Model(None, None, lambda state, condition: whole))
    monkeypatch.setattr(diffuser, "critic", lambda _: None)
    made = diffuser.diffuser.__wrapped__(config, spec, guide=guide)
    return made, DiffuserPlannerState(SCALE, None, None, None)


def crossing(observation, action):
    """A cost that is high in the middle; plans hold a state and an action for every step."""
    assert observation.shape[1:] == (T, 2) and action.shape[1:] == (T, 1)
    gap = jnp.sum(jnp.square(observation - MIDDLE[None, None]), axis=-1)
    return jnp.sum(jnp.exp(-0.5 * gap / RADIUS**2), axis=1)


def test_diffuser_goes_around_a_region_that_it_would_cross(monkeypatch):
    """In closed loop: to the other side, by an agent that follows its plan, and back by another plan."""
    rows, closest = 32, {}
    left, right = (jnp.tile(jnp.array([[x, -1.0]]), (rows, 1)) for x in (-1.0, 3.0))
    config = DiffuserPlannerConfig(horizon=T, candidates=1, replan_every=T - 1, sampling=SAMPLING)
    for name, guide in (("plain", None), ("guided", cost_guide(crossing, strength=5.0))):
        made, state = planner(monkeypatch, config, MAZE, guide)
        act, carry, here, walked = jax.jit(made.policy.act), made.policy.init(left), left, []
        for step in range(2 * (T - 1)):
            goal = right if step < T - 1 else left
            carry, decision = act(jax.random.key(step), state, carry, here, goal)
            assert decision.decided.all() == (step % (T - 1) == 0)
            here = decision.plan.observation[:, step % (T - 1) + 1]
            walked.append(np.asarray(here))
        np.testing.assert_allclose(walked[T - 2], right, atol=1e-5)
        np.testing.assert_allclose(walked[-1], left, atol=1e-5)
        gap = np.linalg.norm(np.stack(walked) - np.asarray(MIDDLE), axis=-1)
        closest[name] = gap.reshape(2, T - 1, rows).min(1)
    assert (closest["plain"] < RADIUS).mean(1).min() > 0.4
    assert (closest["guided"] > RADIUS).all()


def test_a_quadratic_cost_makes_the_tilted_gaussian_in_the_units_of_the_task(monkeypatch):
    """Of entries independent of each other: `N(m, s^2)` times `exp(-strength P (x - a)^2 / 2)`."""
    monkeypatch.setattr(
        parts, "model", lambda _: Model(None, None, lambda state, condition: exact.gaussian(0.0, 1.0))
    )
    monkeypatch.setattr(diffuser, "critic", lambda _: None)
    aim, precision, strength = jnp.array([2.0, 0.0]), 0.5, 3.0

    def cost(observation, action):
        away = jnp.sum(jnp.square(observation - aim[None, None]), axis=(1, 2))
        return 0.5 * precision * (away + jnp.sum(jnp.square(action - 0.3), axis=(1, 2)))

    sampling = SamplingConfig("heun", steps=30, warm_steps=0, sigma_max=80.0)
    config = DiffuserPlannerConfig(horizon=2, candidates=1, sampling=sampling)
    guide = cost_guide(cost, strength, steps=1)
    # One step of steepest ascent solves a quadratic of one curvature: so all entries have one scale.
    scale = SCALE._replace(action=Affine(jnp.zeros(1), jnp.full(1, 2.0)))
    made = diffuser.diffuser.__wrapped__(config, Spec(2, 1), guide=guide)
    state = DiffuserPlannerState(scale, None, None, None)
    here = jnp.zeros((4096, 2))
    plan = first_plan(made, jax.random.key(0), state, here, jnp.zeros((4096, 0)))
    mean, variance = np.array([1.0, -1.0]), 4.0
    tilted = 1 / (1 / variance + strength * precision)
    expected = tilted * (mean / variance + strength * precision * np.asarray(aim))
    found = np.asarray(plan.observation[:, 1])
    np.testing.assert_allclose(found.mean(0), expected, atol=0.06)
    np.testing.assert_allclose(found.std(0), np.sqrt(tilted), rtol=0.1)


def test_both_levels_of_a_hierarchy_are_guided(monkeypatch):
    seen = set()

    def guide(context):
        def of(denoiser):
            def told(x, sigma):
                seen.add((x.shape[1:], context.observation.shape, context.goal.shape, context.history.shape))
                return denoiser(x, sigma)

            return told

        return of

    config = HierarchicalConfig(horizon=12, jump=3, candidates=2, sampling=SAMPLING)
    monkeypatch.setattr(
        two_levels, "model", lambda _: Model(None, None, lambda state, condition: exact.gaussian(0.0, 1.0))
    )
    made = two_levels.hierarchical.__wrapped__(config, MAZE, guide=guide)
    state = two_levels.HierarchicalState(SCALE, None, None, None, None, None)
    first_plan(made, jax.random.key(0), state, jnp.zeros((5, 2)), jnp.ones((5, 2)))
    assert seen == {((rows, d), (5, 2), (5, 2), (5, 1, 2)) for rows, d in ((4, 2), (4, 3))}


def test_equal_guides_are_one_planner_and_what_cannot_be_guided_is_refused():
    config = DiffuserPlannerConfig(horizon=4)
    guide = cost_guide(crossing, 2.0)
    assert make(config, MAZE, guide=guide) is make(config, MAZE, guide=cost_guide(crossing, 2.0))
    assert make(config, MAZE, guide=guide) is not make(config, MAZE)
    with pytest.raises(UserError, match="hashable"):
        make(config, MAZE, guide=[])  # type: ignore[arg-type]
    flow = DiffuserPlannerConfig(
        horizon=4,
        model=ModelConfig(formulation="shortcut"),
        sampling=SamplingConfig(sampler="flow_map", warm_steps=0),
    )
    with pytest.raises(UserError, match="no denoised point to guide"):
        make(flow, MAZE, guide=guide)
    make(flow, MAZE)


@pytest.mark.parametrize("warm", [0, 2])
def test_chains_end_in_the_plan_and_go_down_the_schedule(warm, monkeypatch):
    """Of the best candidate; Euler's steps towards the denoised plan, of an exact denoiser."""
    monkeypatch.setattr(
        parts, "model", lambda _: Model(None, None, lambda state, condition: exact.gaussian(0.0, 1.0))
    )
    monkeypatch.setattr(diffuser, "critic", lambda _: None)
    sampling = SamplingConfig("euler", steps=4, warm_steps=warm)
    config = DiffuserPlannerConfig(horizon=4, candidates=3, replan_every=2, sampling=sampling)
    policy = diffuser.diffuser.__wrapped__(config, Spec(2, 1), trace=True).policy
    state, here = DiffuserPlannerState(SCALE, None, None, None), jnp.ones((5, 2))
    act, carry, none = jax.jit(policy.act), policy.init(here), jnp.zeros((5, 0))
    chains = []
    for step in range(3):
        carry, decision = act(jax.random.key(step), state, carry, here, none)
        chain, plan = np.asarray(decision.chain), decision.plan
        assert chain.shape == (5, 5, 4, 3)
        np.testing.assert_allclose(SCALE.observation.inverse(chain[-1, ..., :2]), plan.observation, atol=1e-5)
        chains.append(chain)
    np.testing.assert_array_equal(chains[0], chains[1])  # it follows the first plan
    sigmas = np.asarray(plan_schedule(sampling, "edm"))
    free = chains[2][:, :, 1:]  # all but the present
    started = 4 - warm if warm else 0
    assert (free[:started] == free[started if warm else 0]).all()
    for i in range(started, 4):
        denoised = free[i] / (1 + sigmas[i] ** 2)
        step = denoised + sigmas[i + 1] / sigmas[i] * (free[i] - denoised)
        np.testing.assert_allclose(free[i + 1], step, atol=1e-4)


def test_how_a_plan_comes_out_of_noise():
    """From noise of the first level to a plan from the present to the goal."""
    task = registry.task_of("pointmaze-umaze")
    config = registry.entry("planner", "diffuser").presets(task)["smoke"].settings
    method = make(config, MAZE)
    state = jax.eval_shape(method.learner.init, jax.eval_shape(lambda: jax.random.key(0)), row_shapes(MAZE))
    state = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), state)._replace(scale=SCALE)
    here, goal = jnp.zeros((2, 2)), jnp.ones((2, 2))
    chain, sigmas = denoising(config, MAZE, jax.random.key(1), state, here, goal, steps=6)
    assert chain.shape == (7, 2, 16, 2) and sigmas.shape == (7,)
    spread = np.asarray(SCALE.observation(chain))[:, :, 1:-1].std((1, 2, 3))
    assert spread[0] == pytest.approx(float(sigmas[0]), rel=0.25) and spread[-1] < 2
    np.testing.assert_allclose(chain[-1][:, 0], here, atol=1e-5)
    np.testing.assert_allclose(chain[-1][:, -1], goal, atol=1e-5)
