"""A2PR's parts against numpy, and a bandit whose better mode is rare."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_reference import forward, to_numpy

from jdp import UserError
from jdp.agents import proposals, td3
from jdp.agents.a2pr import A2PRConfig, a2pr, better_action
from jdp.agents.proposals import VAEConfig
from jdp.agents.td3_bc import TD3BCConfig, td3_bc
from jdp.learning.vector_diffusion import VectorDiffusionConfig
from jdp.types import Normal, Spec, Transition

ROWS = 6
VAE = VAEConfig(hidden=(5,), reconstruction_weight=1.5)


def test_the_actor_is_pulled_to_the_action_of_larger_advantage():
    rng = np.random.default_rng(0)
    proposed, data = rng.normal(size=(2, 9, 2)).astype(np.float32)
    q_proposed, q_data, v = np.meshgrid([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [1.0], indexing="ij")
    q_proposed, q_data, v = (x.ravel().astype(np.float32) for x in (q_proposed, q_data, v))
    chosen, pull = jax.jit(better_action)(proposed, data, q_proposed, q_data, v, 0.4)
    for i in range(9):  # the proposal wins a tie, and is good where it equals V; the data's is not
        mine = q_proposed[i] - v[i] >= q_data[i] - v[i]
        np.testing.assert_array_equal(chosen[i], proposed[i] if mine else data[i])
        assert pull[i] == np.float32(0.4) * (int(q_proposed[i] >= v[i]) + int(q_data[i] > v[i]))


def test_the_vaes_loss_is_that_of_the_good_rows_and_the_divergence_of_all():
    rng, key = np.random.default_rng(0), jax.random.key(4)
    s, a = rng.normal(size=(ROWS, 3)), np.tanh(rng.normal(size=(ROWS, 2)))
    good = np.array([1, 0, 0, 1, 0, 1.0])

    def layers(*widths):
        return {
            f"Dense_{i}": {
                "kernel": rng.normal(size=widths[i : i + 2]),
                "bias": rng.normal(size=widths[i + 1]),
            }
            for i in range(2)
        }

    p = {"encoder": layers(5, 5, 8), "decoder": layers(7, 5, 2)}  # codes of 4
    given = jax.tree.map(lambda x: x.astype(np.float32), (p, s, a, good))
    loss, told = jax.jit(lambda given: proposals.vae_loss(*given, key=key, config=VAE))(given)
    mean, log_std = np.split(forward(p["encoder"], np.concatenate([s, a], 1)), 2, axis=1)
    log_std = np.maximum(log_std, -4)
    code = mean + np.exp(log_std) * to_numpy(jax.random.normal(key, mean.shape))
    error = np.square(np.tanh(forward(p["decoder"], np.concatenate([s, code], 1))) - a)
    kl = -0.5 * np.mean(1 + 2 * log_std - mean**2 - np.exp(2 * log_std))
    np.testing.assert_allclose(told["proposal_loss"], error[good > 0].sum() / error.size, rtol=1e-5)
    np.testing.assert_allclose(told["proposal_kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(loss, 1.5 * told["proposal_loss"] + 0.5 * kl, rtol=1e-5)


def test_the_divergence_is_zero_for_the_prior_alone():
    codes = np.array([0.0, 2.0], np.float32), np.array([1.0, 0.5], np.float32)  # means, standard deviations
    found = jax.jit(
        jax.vmap(lambda m, s: proposals.divergence(Normal(jnp.full((3, 4), m), jnp.full((3, 4), s))))
    )
    np.testing.assert_allclose(found(*codes), [0.0, np.log(2) + (0.25 + 4 - 1) / 2], rtol=1e-6)


def test_an_update_cuts_its_rows_into_two_minibatches():
    first, second = td3.minibatches((jnp.arange(6), jnp.arange(6)))
    np.testing.assert_array_equal(first[0], [0, 1, 2])
    np.testing.assert_array_equal(second[1], [3, 4, 5])
    with pytest.raises(UserError, match="halved"):
        td3.minibatches(jnp.zeros(5))


def test_mistakes_get_one_line():
    with pytest.raises(UserError, match=r"proposal is 'gan': choose one of vae, diffusion"):
        A2PRConfig(proposal="gan")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"latent is 0"):
        VAEConfig(latent=0)


def rare_mode(rows):
    """One state: nine of ten actions are about -.5 and earn 9, one is about .5 and earns 10."""
    rng, ones = np.random.default_rng(0), jnp.ones(rows)
    good = rng.random(rows) < 0.1
    action = np.where(good, 0.5, -0.5) + 0.05 * rng.normal(size=rows)
    reward = np.where(good, 10.0, 9.0)
    action, reward = (jnp.asarray(x, jnp.float32) for x in (action, reward))
    return Transition(ones[:, None], action[:, None], reward, ones[:, None], ones)


def trained(agent, data, updates):
    """The agent's action in the one state after `updates` updates."""

    def step(state, key):
        draw, use = jax.random.split(key)
        rows = jax.random.randint(draw, (256,), 0, len(data.reward))
        return agent.learner.update(use, state, jax.tree.map(lambda x: x[rows], data))

    @jax.jit
    def train(key, data):
        keys = jax.random.split(jax.random.key(1), updates)
        return jax.lax.scan(step, agent.learner.init(key, data), keys)

    state, told = train(jax.random.key(2), data)
    return float(agent.target(state, jnp.ones(1)).mean[0]), told


@pytest.mark.slow
@pytest.mark.parametrize("proposal", ["vae", "diffusion"])
def test_it_ends_at_the_rare_better_mode_where_imitation_does_not(proposal):
    shared: dict[str, Any] = {"hidden": (64, 64), "learning_rate": 1e-3, "normalise_observations": False}
    denoiser = VectorDiffusionConfig(features=32, blocks=1, learning_rate=2e-3, steps=1500, ema=0.99)
    config = A2PRConfig(
        **shared, critic_hidden=(64, 64), proposal=proposal, vae=VAEConfig(hidden=(64, 64)), denoiser=denoiser
    )
    data = rare_mode(4096)
    found, told = trained(a2pr(config, Spec(1, 1)), data, 1500)
    assert found == pytest.approx(0.5, abs=0.15)
    assert float(told["good_share"][-100:].mean()) == pytest.approx(0.1, abs=0.04)
    other, _ = trained(td3_bc(TD3BCConfig(**shared), Spec(1, 1)), data, 1500)
    assert other < -0.1
