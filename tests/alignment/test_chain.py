"""Rows of chains: which count, what they weigh, and groups that lie on several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import level_table as table
import numpy as np
import pytest

from jdp.alignment import advantages, chain, fiberpo, flow_grpo, surrogates
from jdp.alignment.ddpo import DDPOConfig
from jdp.alignment.fiberpo import FiberPOConfig
from jdp.alignment.flow_grpo import FlowGRPOConfig
from jdp.devices import data_mesh, split_batch
from jdp.diffusion.transitions import flow_sde
from jdp.errors import UserError

KEY = jax.random.key(3)
P, K, N = 4, 4, table.SAMPLING.steps
MODEL, STATE = table.MODEL, table.state()


def test_leaving_one_out_is_centring_and_equal_rewards_say_nothing():
    reward = np.float32(np.random.default_rng(0).normal(size=(P, K)))
    reward[-1] = 0.1
    every = {"loo": advantages.leave_one_out, **advantages.SPREADS}
    found = jax.jit(lambda x: {name: spread(x) for name, spread in every.items()})(reward)
    others = (reward.sum(axis=1, keepdims=True) - reward) / (K - 1)
    np.testing.assert_allclose(found["loo"], reward - others, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["loo"], found["none"] * K / (K - 1), rtol=1e-6)
    np.testing.assert_allclose(found["batch"], found["none"] / (reward.std() + 1e-4), rtol=1e-5)
    for name, advantage in found.items():
        assert np.all(advantage[-1] == 0) and np.all(advantage[0] != 0), name


def test_groups_that_straddle_devices_give_the_gradients_of_one():
    config = DDPOConfig(group=K, kl_weight=0.5)
    condition = np.repeat(table.conditions(P), K, axis=0)
    # Two of a group's four samples lie on a device. Any states will do: densities are of any.
    states = np.float32(np.random.default_rng(0).normal(size=(N + 1, P * K, 2)))

    def gradient(states, condition, mesh):
        states, condition = split_batch(states, mesh, 1), split_batch(condition, mesh)
        rows, _ = chain.judged_chains(states, condition, STATE, config, MODEL, advantages.centred)
        own = partial(chain.loss, rows=rows, reference=STATE.reference, config=config, model=MODEL)
        return jax.grad(lambda params: own(params)[0])(table.PARAMS)

    one, eight = (jax.jit(partial(gradient, mesh=m))(states, condition) for m in (None, data_mesh()))
    assert np.abs(one).min() > 1e-4
    np.testing.assert_allclose(eight, one, rtol=1e-4)


def test_flow_grpo_learns_from_groups_that_differ_and_from_no_last_step():
    config = FlowGRPOConfig(group=K, kl_weight=1.0)

    def judge(x0, condition):
        return jnp.where(condition[:, 0] == 1, 0.1, x0[:, 0])  # the second condition rewards all alike

    settings = {"config": config, "model": MODEL, "advantage": advantages.across, "step": flow_sde}
    gather = jax.jit(partial(flow_grpo._collect, **settings))
    rows, told = gather(KEY, table.state(judge=judge), table.conditions(P))
    counts, alike = np.asarray(rows.weight).reshape(N - 1, P, K), np.arange(P)[None, :, None] == 1
    np.testing.assert_allclose(counts, np.broadcast_to(np.where(alike, 0, P / (P - 1)), counts.shape))
    assert rows.moves.step.max() == N - 2 and told["told_apart"] == 1 - 1 / P

    @jax.jit
    def loss(rows):
        options = {"config": config, "model": MODEL, "step": flow_sde}
        total, _ = chain.loss(table.PARAMS, rows, reference=STATE.reference, **options)
        ours, theirs = (
            chain.drawn(p, rows.moves, config, MODEL, flow_sde) for p in (table.PARAMS, STATE.reference)
        )
        return total, chain.divergence(ours, theirs, config, MODEL)

    total, apart = loss(rows)
    left = np.where(alike, 0, apart.reshape(counts.shape)).sum() / ((N - 1) * (P - 1) * K)
    worth = np.mean(np.asarray(rows.weight) * np.asarray(rows.advantage))
    np.testing.assert_allclose(total, config.kl_weight * left - worth, rtol=1e-4)


def test_fewer_levels_in_training_than_in_use():
    learner = flow_grpo.flow_grpo(FlowGRPOConfig(levels=2), MODEL)
    assert dict(learner.update.settings)["model"].sampling.steps == 2 and MODEL.sampling.steps == N
    assert learner == flow_grpo.flow_grpo(FlowGRPOConfig(levels=2), MODEL)


def test_whole_chains_have_the_gradient_of_their_steps_before_anything_is_learned():
    config = FiberPOConfig(group=K, kl_weight=0.5)
    settings = {"config": config, "model": MODEL, "advantage": advantages.centred}
    rows, _ = jax.jit(partial(chain.collect, **settings))(KEY, STATE, table.conditions(P))
    chains = chain.whole(rows, P * K)
    np.testing.assert_array_equal(chains.moves.step, np.broadcast_to(np.arange(N), (P * K, N)))
    np.testing.assert_array_equal(chains.moves.following[:, :-1], chains.moves.state[:, 1:])

    def gradient(rows, surrogate):
        options = {"reference": STATE.reference, "config": config, "model": MODEL, "surrogate": surrogate}
        return jax.grad(lambda params: chain.loss(params, rows, **options)[0])(table.PARAMS)

    plain = jax.jit(lambda: gradient(rows, chain.clipped))()
    gated = jax.jit(lambda: gradient(chains, fiberpo._gated))()
    np.testing.assert_allclose(gated, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DDPOConfig(group=1), "group is 1"),
        (lambda: DDPOConfig(log_prob="median"), "choose one of sum, mean"),
        (lambda: FiberPOConfig(rise=0.1, fall=0.2), "fall is 0.2"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_what_is_left_out_weighs_nothing_and_the_rest_more():
    np.testing.assert_allclose(chain.counted(jnp.array([True, False, True, True])), [4 / 3, 0, 4 / 3, 4 / 3])
    np.testing.assert_array_equal(chain.counted(jnp.zeros(3, bool)), 0)
    assert surrogates.estimated_kl(jnp.zeros(3)) == 0
