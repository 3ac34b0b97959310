"""ReinFlow: a flow with noise in its steps, its density, and a bandit whose optimum is known."""

from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bandits import BASE, BEST, KEY, SPEC, base_state, moved, trained

from jdp.errors import UserError
from jdp.finetune import make, noisy_flow
from jdp.finetune.noisy_flow import NoisyFlowConfig
from jdp.finetune.reinflow import ReinFlowConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.policies import actions

FLOW = replace(BASE, formulation="flow", sampler="euler", sampling_steps=3)
NOISE = NoisyFlowConfig(levels=3, std_min=0.1, std_max=0.3, hidden=(8,))
SHOWN = jnp.linspace(-1, 1, 10).reshape(5, 2)


@lru_cache
def weights():
    """A flow and a noise that are not those of the beginning."""
    noise = NOISE.noise(3).init(KEY, jnp.zeros(3))
    return {"flow": moved(base_state(FLOW).actor.ema, 0.2), "noise": moved(noise, 1.0)}


@lru_cache
def drawn():
    """A chain `[4, 5, 3]`, and the one from the same start without noise."""
    program = jax.jit(lambda p, eta: noisy_flow.sample(KEY, p, SHOWN, NOISE, FLOW, SPEC, eta=eta))
    return tuple(np.asarray(program(weights(), eta)) for eta in (1.0, 0.0))


def test_without_noise_the_chain_is_the_base_policys_own_sampler():
    (noisy, quiet), sigmas = drawn(), FLOW.sampling().sigmas()
    own = actions.denoiser(weights()["flow"], SHOWN, FLOW)
    np.testing.assert_allclose(
        jax.jit(FLOW.sampling().function())(own, quiet[0], sigmas), quiet[-1], atol=1e-6
    )
    np.testing.assert_array_equal(noisy[0], quiet[0])
    assert (noisy[1:] != quiet[1:]).all()


def test_the_density_of_a_chain_is_that_of_its_steps():
    """By hand in the flow's own coordinate `z`: Gaussians around `z + (t' - t) v`, of the network's std."""
    (x, _), program = drawn(), jax.jit(partial(noisy_flow.log_prob, config=NOISE, base=FLOW, spec=SPEC))
    found, entropy = program(weights(), SHOWN, x)
    sigmas = np.asarray(FLOW.sampling().sigmas())
    times, own = sigmas / (1 + sigmas), actions.denoiser(weights()["flow"], SHOWN, FLOW)
    np.testing.assert_allclose(np.diff(times), -0.333, rtol=1e-3)
    z, total, logs = x * (1 - times)[:, None, None], 0.0, []
    for k in range(3):
        std = noisy_flow.noise_std(weights()["noise"], SHOWN, jnp.full(5, sigmas[k]), NOISE, 3)
        assert (std > NOISE.std_min).all() and (std < NOISE.std_max).all() and np.ptp(std) > 0.02
        velocity = (z[k] - own(x[k], jnp.full(5, sigmas[k]))) / times[k]
        miss = (z[k + 1] - z[k] - (times[k + 1] - times[k]) * velocity)[:, :2] / std[:, :2]
        # of x = z / (1 - t), hence the second logarithm; two of three actions are executed
        logs.append(np.log(np.asarray(std[:, :2])))
        each = -0.5 * np.square(miss) - logs[-1] + np.log(1 - times[k + 1]) - 0.5 * np.log(2 * np.pi)
        total = total + np.sum(each, axis=1)
    np.testing.assert_allclose(found, total, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(entropy, np.mean(logs, (0, 2)) + 0.5 * np.log(2 * np.pi * np.e), rtol=1e-4)


def test_noise_begins_at_the_geometric_mean_of_its_bounds():
    noise = NOISE.noise(3).init(KEY, jnp.zeros(3))
    std = noisy_flow.noise_std(noise, SHOWN, jnp.full(5, 2.0), NOISE, 3)
    np.testing.assert_allclose(std, np.sqrt(NOISE.std_min * NOISE.std_max), rtol=5e-3)
    far = jax.tree.map(lambda x: x + 1e3, noise)
    assert (noisy_flow.noise_std(far, SHOWN, jnp.full(5, 2.0), NOISE, 3) <= NOISE.std_max * 1.0001).all()


TINY = ReinFlowConfig(
    acting=OnPolicyConfig(64, 2), flow=replace(NOISE, std_max=0.2), critic_hidden=(16,), minibatches=4,
    learning_rate=3e-3, critic_learning_rate=1e-3, clip=0.2, log_prob="sum", entropy_weight=0.0,
)  # fmt: skip


@pytest.mark.slow
def test_before_it_learns_ratios_are_one_and_the_flow_is_the_bases():
    still = replace(TINY, learning_rate=0.0, critic_learning_rate=0.0, epochs=1)
    _, states, (record,) = trained(still, 1, FLOW)
    np.testing.assert_allclose(record["approximate_kl"], 0, atol=1e-5)
    np.testing.assert_allclose(record["clipped"], 0)
    jax.tree.map(
        lambda ours, base: np.testing.assert_array_equal(ours[0], base),
        states.trained.params["actor"]["flow"],
        base_state(FLOW).actor.ema,
    )


@pytest.mark.slow
def test_a_bandits_actions_move_to_the_best_one():
    """What is left of the reward while it explores is the noise; without it the optimum is reached."""
    method, states, records = trained(TINY, 60, FLOW)
    before, after = (r["returns"] / r["episodes"] for r in (records[0], records[-1]))
    assert (before < -0.8).all() and (after > -0.1).all()
    one = jax.tree.map(lambda x: x[0], states)
    shown = jnp.zeros((200, 2))
    _, decision = method.policy.act(KEY, one, method.policy.init(shown), shown, jnp.zeros((200, 0)))
    assert np.mean(np.abs(decision.action - BEST)) < 0.12
    jax.tree.map(np.testing.assert_array_equal, one.base, base_state(FLOW))


def test_other_policies_are_refused():
    with pytest.raises(UserError, match=r"no flow but of formulation edm: train one with --settings\.formul"):
        make(TINY, SPEC, base=BASE)
    with pytest.raises(UserError, match=r"std_max is 0\.01"):
        NoisyFlowConfig(std_max=0.01)
