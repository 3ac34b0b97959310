"""MoDE: it acts alike with joined experts and with routed ones, and learns the balance of their loads."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from policy_batches import GOALS, MODE, TINY, actions_of, programs, segments, shaken, trained

from jdp import UserError
from jdp.networks.experts import load_balance, routes
from jdp.policies import make
from jdp.policies.mode import joined
from jdp.types import named_keys

beso = __import__("jdp.policies.beso", fromlist=["_"])


def test_joined_experts_act_as_routed_ones():
    method, state, _, act = programs("mode")
    observation = jax.random.normal(jax.random.key(7), (8, 3))
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema, scale=0.1)))
    carry = method.policy.init(observation)
    ahead = jax.jit(partial(joined, config=TINY["mode"]))(state)
    found, wanted = (
        act(jax.random.key(0), s, carry, observation, observation[:, :2])[1].action for s in (ahead, state)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.std(wanted) > 0.05 and np.mean(np.abs(wanted) < 1) > 0.5


def test_the_loss_sees_the_balance_of_what_was_drawn():
    config, state, key = TINY["mode"], programs("mode").state, jax.random.key(3)
    batch = segments(0, config.offsets())
    metrics = programs("mode").update(key, state, batch)[1]
    keys = named_keys(key, "level", "noise", "drop", "router")
    sigma = beso.log_logistic(keys["level"], 64, config)
    c_noise = config.trains().preconditioning.condition(sigma)
    wanted = load_balance(*routes(config.module(), state.actor.params, c_noise, keys["router"]))
    assert metrics["load_balance"] == pytest.approx(float(wanted), rel=1e-4)


def test_settings_that_do_not_go_together_are_told():
    for wrong, told in (
        ({"top_k": 5}, "top_k"),
        ({"features": 36, "heads": 8}, "heads divide"),
    ):
        with pytest.raises(UserError, match=told):
            replace(TINY["mode"], **wrong)
    with pytest.raises(UserError, match="levels of its own"):
        joined(programs("mode").state, replace(TINY["mode"], sampler="churned_euler"))


@pytest.mark.slow
def test_it_follows_its_goal_and_uses_its_experts():
    """Their loads keep more than half of the entropy of 4 experts (measured: 98 %), and are balanced."""
    config, state = TINY["mode"], trained("mode", 300, told=True)
    method = make(replace(config, sampling_steps=10), GOALS)
    for goal in (1.0, -1.0):
        found = actions_of(method, state, goal)
        assert (np.abs(found - MODE * goal) < 0.35).mean() > 0.9
    sigma = beso.log_logistic(jax.random.key(1), 4000, config)
    c_noise = config.trains().preconditioning.condition(sigma)
    weights, probabilities = routes(config.module(), state.actor.ema, c_noise)
    usage = np.asarray(weights).mean((0, 1))
    entropy = -np.sum(usage * np.log(np.maximum(usage, 1e-9))) / np.log(4)
    assert entropy > 0.5
    assert load_balance(weights, probabilities) == pytest.approx(1.0, abs=0.2)
