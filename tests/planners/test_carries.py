"""Rows of a batch are episodes of their own: what one does changes no other, and each may begin anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deciding import row_shapes

from jdp import registry
from jdp.diffusion import exact
from jdp.learning.guides import checked
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_models import Model
from jdp.learning.scale import Affine, Scale
from jdp.planners import SamplingConfig, diffuser, parts
from jdp.planners.diffuser import DiffuserPlannerConfig, DiffuserPlannerState
from jdp.types import Spec, bind

B, GOALS = 4, Spec(3, 2, goal=(0, 1))
SAMPLING = SamplingConfig(steps=4, warm_steps=2)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("name", registry.entries("planner"))
@pytest.mark.parametrize("spec", [Spec(3, 2), GOALS])
def test_every_leaf_of_every_carry_has_a_row_for_each_episode(name, spec):
    """And the carry of a step has the structure of the first."""
    found = registry.entry("planner", name)
    task = registry.task_of("pointmaze-umaze" if spec.goal else "hopper-medium")
    method = found.make(found.presets(task)["smoke"].settings, spec)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(method.learner.init, key, row_shapes(spec))
    observation, goal = jnp.zeros((B, 3)), jnp.zeros((B, len(spec.goal)))
    carry = jax.eval_shape(method.policy.init, observation)
    after, decision = jax.eval_shape(method.policy.act, key, state, carry, observation, goal)
    assert shapes(after) == shapes(carry)
    assert {leaf.shape[0] for leaf in jax.tree.leaves((carry, decision))} == {B}


def planner(monkeypatch, denoiser, spec, **settings):
    """Diffuser over a denoiser without weights; the state has none, but for those of an inverse model."""
    monkeypatch.setattr(parts, "model", lambda _: Model(None, None, lambda state, condition: denoiser))
    monkeypatch.setattr(diffuser, "critic", lambda _: None)
    inverse = InverseConfig("diffusion", hidden=(8,), sampling_steps=2)
    config = DiffuserPlannerConfig(candidates=2, sampling=SAMPLING, inverse=inverse, **settings)
    made = diffuser.diffuser.__wrapped__(config, spec)
    plain = [Affine(jnp.zeros(n), jnp.ones(n)) for n in (spec.observation_dim, spec.action_dim, 1)]
    control = diffuser.parts_of(config, spec, None, False).inverse
    weights = None
    if control is not None:
        s, a = jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, spec.action_dim))
        drawn = jax.eval_shape(control.init, jax.random.key(0), s, s, a)
        weights = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), drawn)
    return made.policy, DiffuserPlannerState(Scale(*plain), None, None, weights)


def play(act, state, carry, steps):
    """`(carry, decisions)` at observations that depend on the step and the row."""
    decisions = []
    for step in steps:
        observation = jnp.arange(B * 3.0).reshape(B, 3) / 10 + step
        goal = jnp.ones((B, 2))
        carry, decision = act(jax.random.key(step), state, carry, observation, goal)
        decisions.append(jax.device_get(decision))
    return carry, decisions


@pytest.mark.parametrize(
    "settings", [{"horizon": 4, "replan_every": 3}, {"horizon": 6, "stride": 2, "replan_every": 1}]
)
def test_a_row_that_is_reset_acts_as_a_fresh_one_and_the_others_go_on(settings, monkeypatch):
    """In the middle of a plan; plans begin warm, and the inverse model draws its actions."""
    policy, state = planner(monkeypatch, exact.gaussian(0.0, 1.0), GOALS, **settings)
    act, begin = jax.jit(policy.act), policy.init
    carry, _ = play(act, state, begin(jnp.zeros((B, 3))), range(5))
    fresh = begin(jnp.zeros((B, 3)))
    done = jnp.arange(B) == 1
    mixed = jax.tree.map(lambda a, b: jnp.where(done.reshape(-1, *[1] * (a.ndim - 1)), a, b), fresh, carry)
    later = range(5, 12)
    expected, began = (play(act, state, c, later)[1] for c in (carry, fresh))
    assert act._cache_size() == 1
    for step, found in enumerate(play(act, state, mixed, later)[1]):
        for row in range(B):
            reference = began if row == 1 else expected
            np.testing.assert_array_equal(found.action[row], reference[step].action[row])
            np.testing.assert_array_equal(found.plan.observation[row], reference[step].plan.observation[row])
            assert found.decided[row] == reference[step].decided[row]
    if settings["replan_every"] == 3:  # it plans at other steps than the rest
        assert began[0].decided.all() and not expected[0].decided.any()


def _constant(number, x, sigma):
    del sigma
    return jnp.broadcast_to(number[:, None], x.shape)


def _tell(context):
    """Plans whose entries are: steps since the beginning, the oldest and the second oldest observation."""
    assert context.history.shape[1:] == (3, 3)
    elapsed = context.elapsed.astype(jnp.float32)
    told = jnp.stack([elapsed, context.history[:, 0, 0], context.history[:, 1, 0]], axis=1)
    told = jnp.concatenate([told, jnp.zeros((told.shape[0], 2))], axis=1)  # and the actions
    return lambda denoiser: bind(_constant, told)


def test_a_guide_is_told_the_steps_and_the_last_observations_of_each_episode(monkeypatch):
    """Those of a row that begins anew in between are of its new episode, its first one in front of them."""
    policy, state = planner(monkeypatch, exact.gaussian(0.0, 1.0), Spec(3, 2), horizon=4, replan_every=1)
    config = DiffuserPlannerConfig(horizon=4, candidates=2, sampling=SAMPLING)
    policy = diffuser.diffuser.__wrapped__(config, Spec(3, 2), guide=checked(_tell, 3)).policy
    act, carry, none = jax.jit(policy.act), policy.init(jnp.zeros((B, 3))), jnp.zeros((B, 0))
    for step in range(6):
        here = jnp.full((B, 3), 10.0 * step)
        if step == 2:
            carry = jax.tree.map(lambda new, old: old.at[1].set(new[1]), policy.init(here), carry)
        carry, decision = act(jax.random.key(step), state, carry, here, none)
        begun = np.array([0, 2, 0, 0]) * (step >= 2)
        told = [step - begun, *(10 * np.maximum(step - back, begun) for back in (2, 1))]
        np.testing.assert_allclose(decision.plan.observation[:, 1], np.stack(told, axis=1), atol=1e-5)
    assert act._cache_size() == 1
