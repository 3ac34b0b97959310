"""MoDE: it acts alike with joined experts and with routed ones, and learns the balance of their loads."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from policy_batches import GOALS, TINY, programs, segments, shaken

from jdp import UserError
from jdp.networks.experts import load_balance, routes
from jdp.policies import make
from jdp.types import named_keys

beso = __import__("jdp.policies.beso", fromlist=["_"])


def test_joined_experts_act_as_routed_ones():
    state, observation = programs("mode").state, jax.random.normal(jax.random.key(7), (8, 3))
    state = state._replace(actor=state.actor._replace(ema=shaken(state.actor.ema, scale=0.1)))
    acted = []
    for fused in (True, False):
        method = make(replace(TINY["mode"], fused=fused), GOALS)
        act = programs("mode").act if fused else jax.jit(method.policy.act)
        carry = method.policy.init(observation)
        acted.append(act(jax.random.key(0), state, carry, observation, observation[:, :2])[1].action)
    np.testing.assert_allclose(*acted, atol=1e-5)
    assert np.std(acted[0]) > 0.05 and np.mean(np.abs(acted[0]) < 1) > 0.5


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
        ({"sampler": "churned_euler"}, "set fused to false"),
    ):
        with pytest.raises(UserError, match=told):
            replace(TINY["mode"], **wrong)
