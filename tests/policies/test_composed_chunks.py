"""Composed policies of chunks: exact denoisers in closed loop, trained kinds together, what is refused."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_batches import GOALS, TINY, offsets_of, programs, rows_like, segments, shaken

from jdp import UserError
from jdp.data.normalise import Affine
from jdp.diffusion.exact import gaussian
from jdp.evaluation import pairs, search_weights
from jdp.learning.averaged import Averaged
from jdp.policies import chunks, cost_guide, make
from jdp.policies.chunks import Chunks, CloneState
from jdp.policies.composed import composed, composed_state
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.rti import warm
from jdp.types import Bound, Spec, bind

STD, STEPS = 0.1, 12


def _towards(seen, bias, x, sigma):
    mean = jnp.clip(-seen + bias, -0.8, 0.8)  # home, but for the bias
    return gaussian(jnp.broadcast_to(mean, x.shape), STD)(x, sigma)


def biased(params, seen, *, bias):
    """Chunks that go home from the place `seen` `[B, 1]`, and `bias` too far."""
    del params
    return bind(_towards, seen, jnp.float32(bias))


def policy_of(bias, guide=None, **settings):
    config = DiffusionPolicyConfig(**{"chunk": 2, "execute": 1, "sampling_steps": 8, **settings})
    return Chunks(Bound(biased, (("bias", bias),)), config, Spec(1, 1), guide).policy(chunks.act)


BLANK = CloneState(Averaged(*[None] * 4), Affine(jnp.zeros(1), jnp.ones(1)))


@partial(jax.jit, static_argnums=0)
def ends(policy, state, episodes):
    """`[n]`, where walks of twelve steps of a tenth end, that began within 1 of home."""
    starts = jax.vmap(lambda e: jax.random.uniform(jax.random.key(e), (1,), minval=-1.0))(episodes)

    def tick(carry, key):
        inner, place = carry
        inner, decision = policy.act(key, state, inner, place, jnp.zeros((len(episodes), 0)))
        return (inner, place + 0.5 * decision.action), None

    keys = jax.random.split(jax.random.key(0), STEPS)
    return jax.lax.scan(tick, (policy.init(starts), starts), keys)[0][1][:, 0]


def test_policies_of_opposite_bias_arrive_together():
    """Each alone ends off by its bias; the weight is chosen by other episodes than it is scored on."""
    policy = composed([policy_of(0.6), policy_of(-0.4)])

    def play(weights, episodes):
        state = composed_state([BLANK, BLANK], weights)
        return np.abs(np.asarray(ends(policy, state, jnp.array(list(episodes))))) < 0.15

    found = search_weights(play, pairs(6), search=range(500), held_out=range(500, 1000))
    assert found.chosen == pytest.approx((0.4, 0.6))
    assert found.held_out.mean() > 0.9 and (found.parents.mean(1) < 0.05).all()
    spoiled = composed([policy_of(0.02), policy_of(9.0)])

    def hurt(weights, episodes):
        state = composed_state([BLANK, BLANK], weights)
        return np.abs(np.asarray(ends(spoiled, state, jnp.array(list(episodes))))) < 0.15

    worse = search_weights(hurt, pairs(6), search=range(500), held_out=range(500, 1000))
    assert worse.chosen == (1.0, 0.0) and worse.scores[1] < 0.8 * worse.scores[0]


def test_at_weights_of_one_and_nothing_it_is_the_first_to_the_last_bit():
    """Operation by operation. So it is where the second sees more of the past."""
    own, here, none = policy_of(0.6), jnp.array([[0.3], [-0.2]]), jnp.zeros((2, 0))
    policy = composed([own, policy_of(-0.4, history=1, sampler="euler")])
    key, found = jax.random.key(1), []
    for who, state in ((own, BLANK), (policy, composed_state([BLANK, BLANK], (1.0, 0.0)))):
        _, decision = who.act(key, state, who.init(here), here, none)
        found.append(np.asarray(decision.action))
    np.testing.assert_array_equal(found[0], found[1])


def weights_of(name, seed):
    state = programs(name).state
    return state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema, seed, 0.1)))


def test_kinds_and_formulations_are_played_together():
    """A flow that sees one observation and a denoiser that sees two; new weights compile nothing."""
    other = make(replace(TINY["diffusion_policy"], formulation="flow", history=1), GOALS)
    theirs = other.learner.init(jax.random.key(3), rows_like(segments(0, offsets_of(other))))
    states = [weights_of("diffusion_policy", 5), theirs]
    policy = composed([programs("diffusion_policy").method.policy, other.policy])
    here = jax.random.normal(jax.random.key(7), (8, 3))
    act, carry, found = jax.jit(policy.act), policy.init(here), []
    assert carry.past.history.shape == (8, 2, 3)
    for w in (0.0, 0.5, 1.0):
        state = composed_state(states, (1 - w, w))
        found.append(np.asarray(act(jax.random.key(1), state, carry, here, here[:, :2])[1].action))
        assert np.abs(found[-1]).max() <= 1
    first = programs("diffusion_policy")
    alone = first.act(jax.random.key(1), states[0], carry, here, here[:, :2])[1].action
    np.testing.assert_allclose(found[0], alone, atol=1e-5)
    assert np.abs(found[2] - found[0]).max() > 0.1 and act._cache_size() == 1


def _leftwards(observation, action):
    del observation
    return jnp.sum(action, axis=(1, 2))


def test_a_composed_policy_is_guided_and_begins_warm_as_any_other():
    policy = composed([policy_of(0.6, guide=cost_guide(_leftwards, 9.0)), policy_of(-0.4)])
    state, episodes = composed_state([BLANK, BLANK], (0.4, 0.6)), jnp.arange(200)
    for own in (policy, warm(policy, 4)):
        assert np.mean(ends(own, state, episodes)) < -0.05  # without the guide they end at 0


def test_what_does_not_fit_together_is_refused():
    one = policy_of(0.6)
    with pytest.raises(UserError, match="two or more policies, not of 1"):
        composed([one])
    with pytest.raises(UserError, match=r"2 actions of 1 entries.*and 3 of 1"):
        composed([one, policy_of(0.1, chunk=3)])
    with pytest.raises(UserError, match="composition goes on from chunks that a sampler"):
        composed([one, make(TINY["idql"], GOALS).policy])
    with pytest.raises(UserError, match=r"2 models are composed, with weights of shape \(3,\)"):
        composed_state([BLANK, BLANK], (0.2, 0.3, 0.5))
    assert composed([one, policy_of(-0.4)]) == composed([policy_of(0.6), policy_of(-0.4)])
