"""Guidance on a trained network: the target policy finds guided actions more likely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdp
from jdp import loops
from jdp.agents import TD3BCConfig, td3_bc
from jdp.evaluation import interval
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig
from jdp.synthesis import GuidanceConfig, SamplerConfig, guide

LENGTH, COUNT = 8, 128
SAMPLER = SamplerConfig(steps=16, batch=COUNT)


@pytest.fixture(scope="module")
def trained():
    data = jdp.data.load("hopper-medium", source="bundled")
    normaliser = jdp.data.fit_normaliser(data)
    rows, _ = jdp.data.training_rows(data, normaliser)
    windows = jdp.data.windows(data, LENGTH)
    diffuser = trajectory_diffuser(
        NetworkConfig("residual_unet", 16, 2), DiffuserConfig(steps=800, batch_size=64)
    )
    state = loops.fit(
        diffuser.update,
        jdp.synthesis.draw_windows(64, LENGTH),
        jax.jit(diffuser.init)(jax.random.key(0), jnp.zeros((64, LENGTH, rows.shape[1]))),
        (rows, windows.starts, windows.last),
        key=jax.random.key(1),
        stop=800,
    )
    agent = td3_bc(TD3BCConfig(hidden=(16, 16)), data.spec)
    sample = jax.tree.map(lambda x: jnp.asarray(x[:2000]), jdp.data.transitions(data))
    states = jax.jit(jax.vmap(agent.init, in_axes=(0, None)))(jax.random.split(jax.random.key(2), 1), sample)
    return data, normaliser, diffuser.denoiser(state), agent, states


def log_likelihoods(trained, coefficient: float | None) -> np.ndarray:
    """One mean a trajectory, of actions under N(pi(s), 1)."""
    _, normaliser, denoiser, agent, states = trained
    if coefficient is not None:
        config = GuidanceConfig(coefficient=coefficient)
        denoiser = guide(denoiser, agent.act, states, normaliser, config, SAMPLER.sigmas())
    x = jdp.synthesis.generate(
        jax.random.key(3),
        denoiser,
        SAMPLER,
        count=COUNT,
        length=LENGTH,
        channels=normaliser.mean.shape[0],
    )[0]
    made = jdp.synthesis.experience(x, normaliser)
    mean = np.asarray(agent.act(jax.tree.map(lambda s: s[0], states), jnp.asarray(made.observation)).mean)
    log_prob = -0.5 * np.square(made.action - mean).sum(-1) - 1.5 * np.log(2 * np.pi)
    return np.array([row[ok].mean() for row, ok in zip(log_prob, made.valid, strict=True) if ok.any()])


def test_guided_actions_are_likelier_by_more_than_the_interval(trained):
    unguided, guided = log_likelihoods(trained, None), log_likelihoods(trained, 2.0)
    below, above = interval(unguided), interval(guided)
    assert above.low > below.high, (below, above)


def test_zero_guidance_changes_nothing(trained):
    np.testing.assert_allclose(log_likelihoods(trained, 0.0), log_likelihoods(trained, None), atol=1e-4)
