"""A user's guide steers what policies draw, in closed loop; what it sees; and who takes one."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, TINY, programs, shaken

from jdp import UserError, registry
from jdp.data.normalise import Affine
from jdp.diffusion import exact
from jdp.learning.averaged import Averaged
from jdp.policies import actions, cost_guide, diffusion_policy, make
from jdp.policies.chunks import CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.types import Spec, bind

GUIDED = [name for name, entry in registry.entries("policy").items() if registry.takes(entry, "guide")]
ROWS, SPEED, RADIUS = 16, 0.25, 0.4
MIDDLE = jnp.array([1.5, 0.0])


def crossing(observation, action):
    """A cost that is high in the middle, of where the chunk leads from the present."""
    way = observation + SPEED * jnp.cumsum(action, axis=1)
    gap = jnp.sum(jnp.square(way - MIDDLE[None, None]), axis=-1)
    return jnp.sum(jnp.exp(-0.5 * gap / RADIUS**2), axis=1)


def exactly(monkeypatch, mean, std, guide, **settings):
    """Diffusion policy over the exact denoiser of independent Gaussian actions; and its state."""
    own = actions.clipped(exact.gaussian(jnp.asarray(mean), std))
    monkeypatch.setattr(actions, "denoiser", lambda *_, **__: own)
    config = DiffusionPolicyConfig(sigma_data=std, **settings)
    made = diffusion_policy.diffusion_policy.__wrapped__(config, Spec(2, 2), guide=guide)
    return made.policy, CloneState(Averaged(*[None] * 4), Affine(jnp.zeros(2), jnp.ones(2)))


def test_actions_lead_around_a_region_that_they_would_cross(monkeypatch):
    """In closed loop, by chunks of three actions of which two are executed."""
    closest, past, mean = {}, {}, np.tile([0.6, 0.0], 3)
    for name, guide in (("plain", None), ("guided", cost_guide(crossing, strength=9.0))):
        settings = {"chunk": 3, "execute": 2, "sampling_steps": 10}
        policy, state = exactly(monkeypatch, mean, 0.3, guide, **settings)
        here = jnp.stack([jnp.zeros(ROWS), jnp.linspace(-0.3, 0.3, ROWS)], axis=1)
        act, carry, walked = jax.jit(policy.act), policy.init(here), []
        for step in range(24):
            carry, decision = act(jax.random.key(step), state, carry, here, jnp.zeros((ROWS, 0)))
            assert np.abs(decision.action).max() <= 1
            here = here + SPEED * decision.action
            walked.append(np.asarray(here))
        assert act._cache_size() == 1
        past[name] = walked[-1][:, 0] > MIDDLE[0] + RADIUS
        closest[name] = np.linalg.norm(np.stack(walked) - np.asarray(MIDDLE), axis=-1).min(axis=0)
    assert (closest["plain"] < RADIUS).mean() > 0.5
    assert (closest["guided"] > RADIUS).mean() > 0.9
    assert past["plain"].all() and past["guided"].mean() > 0.8  # it is no wall


def test_a_quadratic_cost_makes_the_tilted_gaussian(monkeypatch):
    """`N(m, s^2)` times `exp(-strength (a - aim)^2 / 2)`, of actions as they are."""
    mean, std, aim, strength, rows = 0.1, 0.2, 0.5, 20.0, 4096

    def cost(observation, action):
        assert observation.shape[1:] == (1, 2) and action.shape[1:] == (2, 2)
        return 0.5 * jnp.sum(jnp.square(action - aim), axis=(1, 2))

    settings = {"chunk": 2, "execute": 1, "sampler": "heun", "sampling_steps": 25}
    guide = cost_guide(cost, strength, steps=1)
    policy, state = exactly(monkeypatch, np.full(4, mean), std, guide, **settings)
    here = jnp.zeros((rows, 2))
    _, decision = policy.act(jax.random.key(0), state, policy.init(here), here, jnp.zeros((rows, 0)))
    tilted = 1 / (1 / std**2 + strength)
    found = np.asarray(decision.action)
    np.testing.assert_allclose(found.mean(0), tilted * (mean / std**2 + strength * aim), atol=0.01)
    np.testing.assert_allclose(found.std(0), np.sqrt(tilted), rtol=0.1)


def leftwards(observation, action):
    """The more, the further right the first entry of any action points."""
    return jnp.sum(action[..., 0], axis=1)


def acted(name, guide, steps=2, jit=jax.jit):
    """Actions `[steps, B, A]` of `TINY[name]` with some weights."""
    state = programs(name).state
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema, scale=0.1)))
    method = programs(name).method if guide is None else make(TINY[name], GOALS, guide=guide)
    act = programs(name).act if guide is None and jit is jax.jit else jit(method.policy.act)
    observation = jax.random.normal(jax.random.key(7), (8, 3))
    carry, found = method.policy.init(observation), []
    for step in range(steps):
        carry, decision = act(jax.random.key(step), state, carry, observation, observation[:, :2])
        found.append(np.asarray(decision.action))
    return np.stack(found)


@pytest.mark.parametrize("name", GUIDED)
def test_every_policy_with_a_denoiser_is_steered(name):
    """And stays within the box."""
    plain, found = acted(name, None), acted(name, cost_guide(leftwards, 20.0))
    assert found[..., 0].mean() < plain[..., 0].mean() - 0.1
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize("name", ["diffusion_policy", "edp"])
def test_a_guide_of_strength_0_changes_no_bit(name):
    """Operation by operation: XLA may fuse two programs in two ways."""
    found, plain = (acted(name, guide, jit=lambda act: act) for guide in (cost_guide(leftwards, 0.0), None))
    np.testing.assert_array_equal(found, plain)


def _constant(number, x, sigma):
    del sigma  # of the first entries of what is drawn, two here
    return jnp.zeros(x.shape).at[..., :2].set(number[:, None] / 100)


@dataclass(frozen=True)
class Tell:
    """Draws actions that are a hundredth of the steps since the beginning, and of the oldest observation."""

    history: int = 3

    def __call__(self, context):
        assert context.history.shape[1:] == (self.history, 3)
        told = jnp.stack([context.elapsed.astype(jnp.float32), context.history[:, 0, 0]], axis=1)
        return lambda denoiser: bind(_constant, told)


@pytest.mark.parametrize("name", ["beso", "edp"])
def test_a_guide_is_told_the_steps_and_the_last_observations_of_each_episode(name):
    """Those of a row that begins anew in between are of its new episode, its first one in front of them."""
    policy = make(TINY[name], GOALS, guide=Tell()).policy
    act, carry = jax.jit(policy.act), policy.init(jnp.zeros((4, 3)))
    for step in range(6):
        here = jnp.full((4, 3), 10.0 * step)
        if step == 2:
            carry = jax.tree.map(lambda new, old: old.at[1].set(new[1]), policy.init(here), carry)
        carry, decision = act(jax.random.key(step), programs(name).state, carry, here, jnp.ones((4, 2)))
        begun = np.array([0, 2, 0, 0]) * (step >= 2)
        told = np.stack([step - begun, 10 * np.maximum(step - 2, begun)], axis=1) / 100
        np.testing.assert_allclose(decision.action, told, atol=1e-5)
    assert act._cache_size() == 1


@pytest.mark.parametrize("name", TINY)
def test_every_leaf_of_every_carry_has_a_row_for_each_episode(name):
    """And the carry of a step has the structure of the first."""
    for guide in (None, Tell(5)) if name in GUIDED else (None,):
        policy, observation = make(TINY[name], GOALS, guide=guide).policy, jnp.zeros((4, 3))
        state, key = programs(name).state, jax.random.key(0)
        carry = jax.eval_shape(policy.init, observation)
        after, decision = jax.eval_shape(policy.act, key, state, carry, observation, jnp.zeros((4, 2)))
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (carry, after)) == 2 * (
            jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), carry),
        )
        assert {leaf.shape[0] for leaf in jax.tree.leaves((carry, decision))} == {4}


def test_equal_guides_are_one_policy_and_what_cannot_be_guided_is_refused():
    guide = cost_guide(leftwards, 2.0)
    assert make(TINY["beso"], GOALS, guide=guide) is make(
        TINY["beso"], GOALS, guide=cost_guide(leftwards, 2.0)
    )
    again = make(TINY["beso"], GOALS, guide=guide, history=3)
    assert again is make(TINY["beso"], GOALS, guide=guide, history=3)
    assert again.policy.init(jnp.zeros((2, 3))).past.history.shape == (2, 3, 3)
    with pytest.raises(UserError, match="fql has no denoiser to guide"):
        make("fql", GOALS, guide=guide)
    with pytest.raises(UserError, match="hashable"):
        make(TINY["beso"], GOALS, guide=[])  # type: ignore[arg-type]
    for wrong in ({"guide": guide, "history": 0}, {"history": 2}):
        with pytest.raises(UserError, match="history is"):
            make(TINY["beso"], GOALS, **wrong)
    assert set(TINY) - set(GUIDED) == {"ebt", "fql", "rdp", "two_hot"}  # none of actions
    assert actions.ActorConfig().sigma_data == 0.5
