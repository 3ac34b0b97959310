"""Composed planners over exact denoisers: the weighted mean of their plans, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion import exact
from jdp.learning.plan_models import Model
from jdp.learning.scale import Affine, Scale
from jdp.planners import SamplingConfig, diffuser, make, parts
from jdp.planners.composed import composed, composed_state
from jdp.planners.diffuser import DiffuserPlannerConfig, DiffuserPlannerState
from jdp.planners.hierarchical import HierarchicalConfig
from jdp.types import Bound, Spec, bind

MAZE = Spec(2, 1, goal=(0, 1))
SCALE = Scale(*(Affine(jnp.zeros(n), jnp.ones(n)) for n in (2, 1, 1)))
CONFIG = DiffuserPlannerConfig(
    horizon=5, candidates=1, sampling=SamplingConfig("heun", steps=20, warm_steps=0, sigma_max=40.0)
)


def _about(state, condition, *, std):
    """Plans about the number that was learned."""
    del condition
    return exact.gaussian(state, std)


def planner(monkeypatch, std=0.5, config=CONFIG):
    model = Model(None, None, Bound(_about, (("std", std),)))  # type: ignore[arg-type]
    monkeypatch.setattr(parts, "model", lambda _: model)
    return diffuser.diffuser.__wrapped__(config, MAZE).policy


def state(number, scale=SCALE):
    return DiffuserPlannerState(scale, jnp.float32(number), None, None)


def plans(policy, act, of):
    here = jnp.zeros((2000, 2))
    _, decision = act(jax.random.key(0), of, policy.init(here), here, jnp.ones((2000, 2)))
    return np.asarray(decision.plan.observation)


def test_plans_lie_between_those_of_the_planners_and_keep_present_and_goal(monkeypatch):
    policy = composed([planner(monkeypatch), planner(monkeypatch)])
    act = jax.jit(policy.act)
    for weights in ((0.4, 0.6), (1.0, 0.0), (1.5, -0.5)):
        found = plans(policy, act, composed_state([state(1.0), state(-0.5)], weights))
        np.testing.assert_array_equal(found[:, 0], 0)
        np.testing.assert_array_equal(found[:, -1], 1)
        inside = found[:, 1:-1]
        np.testing.assert_allclose(inside.mean((0, 1)), weights[0] - 0.5 * weights[1], atol=0.05)
        np.testing.assert_allclose(inside.std((0, 1)), 0.5, rtol=0.05)
    assert act._cache_size() == 1
    own = planner(monkeypatch)
    alone = plans(own, own.act, state(1.0))  # operation by operation
    np.testing.assert_array_equal(
        plans(policy, policy.act, composed_state([state(1.0), state(-0.5)], (1.0, 0.0))), alone
    )


def _of_the_plan(edge, x, sigma):
    """Whose plan it is, by its second row: the first expert's above the edge."""
    del sigma
    side = x[:, 1, 0] - edge
    return 40.0 * jnp.stack([side, -side], axis=-1)


def test_with_a_router_experts_speak_where_their_data_are(monkeypatch):
    policy = composed([planner(monkeypatch, 0.1), planner(monkeypatch, 0.1)])
    act, states = jax.jit(policy.act), [state(1.0), state(-1.0)]
    found = plans(policy, act, composed_state(states, bind(_of_the_plan, jnp.float32(0.0))))[:, 1:-1]
    where = found.mean(-1)
    share = (where > 0).mean(0)[0]
    assert 0.4 < share < 0.6  # by the noise that they began from
    np.testing.assert_allclose(np.abs(where[:, 0]), 1, atol=0.5)
    always = plans(policy, act, composed_state(states, bind(_of_the_plan, jnp.float32(-1e3))))
    first = plans(policy, jax.jit(policy.act), composed_state(states, (1.0, 0.0)))
    np.testing.assert_allclose(always, first, atol=1e-4)


def test_what_does_not_fit_together_is_refused(monkeypatch):
    own = planner(monkeypatch)
    with pytest.raises(UserError, match="of two or more planners"):
        composed([own])
    with pytest.raises(UserError, match="one method and one shape of plans"):
        composed([own, planner(monkeypatch, config=DiffuserPlannerConfig(horizon=7, candidates=1))])
    with pytest.raises(UserError, match="planners with one denoiser of plans"):
        composed([own, make(HierarchicalConfig(horizon=12, jump=3), MAZE).policy])
    with pytest.raises(UserError, match="their plans lie in two spaces"):
        moved = SCALE._replace(observation=Affine(jnp.ones(2), jnp.ones(2)))
        composed_state([state(0.0), state(0.0, moved)], (0.5, 0.5))
    with pytest.raises(UserError, match="2 models are composed"):
        composed_state([state(0.0), state(0.0)], (1.0,))
