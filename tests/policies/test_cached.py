"""A policy with a cache: the same trained state, the same actions when everything is computed."""

import jax
import numpy as np
import pytest
from policy_batches import GOALS, TINY, programs, shaken

from jdp import UserError
from jdp.diffusion.caching import uniform
from jdp.policies.cached import cached
from jdp.policies.rti import warm


def acted(method, state, act):
    observation, found = jax.random.normal(jax.random.key(7), (8, 3)), []
    carry = method.policy.init(observation)
    for step in range(4):
        carry, decision = act(jax.random.key(step), state, carry, observation, observation[:, :2])
        found.append(np.asarray(decision.action))
    return np.stack(found)


def test_a_policy_computes_what_its_schedule_says():
    """BESO's, whose denoiser is guided without a classifier."""
    config, (plain, state, _, act) = TINY["beso"], programs("beso")
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema)))
    steps, wanted = config.sampling_steps, acted(plain, state, act)
    found = {}
    for budget in (1, steps):
        method = cached(config, GOALS, uniform(config.blocks, steps, budget))
        assert method.learner is plain.learner
        assert method.policy == cached(config, GOALS, uniform(config.blocks, steps, budget)).policy
        act = jax.jit(method.policy.act)
        found[budget] = acted(method, state, act)
        assert act._cache_size() == 1
    np.testing.assert_allclose(found[steps], wanted, atol=1e-4)
    assert np.abs(found[1] - wanted).max() > 1e-3


def test_a_policy_that_draws_around_something_is_cached_too():
    config, (_, state, _, _) = TINY["diffusion_drive"], programs("diffusion_drive")
    method = cached(config, GOALS, uniform(config.blocks, config.sampling_steps, config.sampling_steps))
    assert np.abs(acted(method, state, jax.jit(method.policy.act))).max() <= 1


def test_what_cannot_be_cached_is_refused():
    config = TINY["beso"]
    policy = cached(config, GOALS, uniform(config.blocks, config.sampling_steps, 1)).policy
    with pytest.raises(UserError, match="leave the schedule out"):
        warm(policy, 1)
    with pytest.raises(UserError, match="fql acts without a sampler"):
        cached(TINY["fql"], GOALS, uniform(1, 2, 1))
