"""Guidance on a trained network: the target policy finds guided actions more likely."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdp
from jdp import loops
from jdp.agents.td3_bc import TD3BCConfig, td3_bc
from jdp.evaluation import interval
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig
from jdp.synthesis import GuidanceConfig, SamplerConfig, synthetic_experience

LENGTH, COUNT = 8, 128
SAMPLER = SamplerConfig(steps=16, sigma_max=20.0, batch=COUNT)


pytestmark = pytest.mark.slow  # a diffuser is trained


@pytest.fixture(scope="module")
def trained():
    data = jdp.data.load("hopper-medium", source="bundled")
    diffuser = loops.train_diffuser(
        data,
        NetworkConfig("residual_unet", 16, 2),
        DiffuserConfig(steps=800, batch_size=64),
        LENGTH,
        key=jax.random.key(1),
    )
    agent = td3_bc(TD3BCConfig(hidden=(16, 16)), data.spec)
    sample = jax.tree.map(lambda x: jnp.asarray(x[:2000]), jdp.data.transitions(data))
    init = jax.jit(jax.vmap(agent.learner.init, in_axes=(0, None)))
    return diffuser, agent, init(jax.random.split(jax.random.key(2), 1), sample)


def log_likelihoods(trained, coefficient: float | None) -> np.ndarray:
    """One mean a trajectory, of actions under N(pi(s), 1)."""
    diffuser, agent, states = trained
    guidance = GuidanceConfig(coefficient=coefficient or 0.0)
    guided = () if coefficient is None else (agent, states)
    made = synthetic_experience(
        jax.random.key(3), diffuser, *guided, count=COUNT, length=LENGTH, sampler=SAMPLER, guidance=guidance
    )
    made = jax.tree.map(lambda x: x[0], made)
    mean = np.asarray(agent.target(jax.tree.map(lambda s: s[0], states), jnp.asarray(made.observation)).mean)
    log_prob = -0.5 * np.square(made.action - mean).sum(-1) - 1.5 * np.log(2 * np.pi)
    return np.array([row[ok].mean() for row, ok in zip(log_prob, made.valid, strict=True) if ok.any()])


def test_guided_actions_are_likelier_by_more_than_the_interval(trained):
    unguided, guided = log_likelihoods(trained, None), log_likelihoods(trained, 2.0)
    below, above = interval(unguided), interval(guided)
    assert above.low > below.high, (below, above)


def test_zero_guidance_changes_nothing(trained):
    np.testing.assert_allclose(log_likelihoods(trained, 0.0), log_likelihoods(trained, None), atol=1e-4)
