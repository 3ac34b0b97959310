"""A coarse choice off the data comes to lie on them, at the reward that is asked for."""

import jax
import jax.numpy as jnp
import numpy as np

from jdp.diffusion.exact import mixture
from jdp.diffusion.refined import refined
from jdp.diffusion.sampling import Sampling

MODES = jnp.array([[-2.0, -2.0], [2.0, -2.0], [-2.0, 2.0], [2.0, 2.0]])
DATA = mixture(jnp.ones(4) / 4, MODES, jnp.full(4, 0.3))


def reward(x, sigma):
    del sigma
    return 0.5 * x[:, 0] + 0.25 * x[:, 1]


def off(x):
    """How far from the nearest mode, in its standard deviations."""
    return jnp.min(jnp.linalg.norm(x[:, None] - MODES[None], axis=-1), axis=1) / 0.3


def test_what_is_refined_is_worth_more_and_nearer_to_the_data():
    coarse = jnp.array([[1.0, 2.6]]) + 0.3 * jax.random.normal(jax.random.key(0), (500, 2))
    draw = jax.jit(refined, static_argnames=("sampling", "reward"))
    found = draw(jax.random.key(1), DATA, coarse, Sampling(steps=12, sigma_max=1.0), reward, 1.7)
    before, after = reward(coarse, None), reward(found, None)
    assert before.mean() < 1.3 and after.mean() > 1.55
    assert off(coarse).mean() > 3 and off(found).mean() < 1.6
    assert np.mean(jnp.argmin(jnp.linalg.norm(found[:, None] - MODES[None], axis=-1), axis=1) == 3) > 0.95
    plain = draw(
        jax.random.key(1), DATA, coarse, Sampling(steps=12, sigma_max=1.0), reward, 1.7, variance=1e6
    )
    assert reward(plain, None).mean() < after.mean() - 0.05  # the wish has a part in it
