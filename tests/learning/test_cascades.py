"""Cascades that learn: with weights of 0 Gaussians of each scale, after training an autoregression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdp import UserError
from jdp.data.draws import WindowRows
from jdp.diffusion import cascade, haar
from jdp.diffusion.likelihood import bits_per_dimension, rising
from jdp.learning.cascades import SpreadDraw, cascade_diffuser
from jdp.learning.diffuser import DiffuserConfig
from jdp.loops import fit
from jdp.networks import NetworkConfig

T, RHO = 8, 0.9
AR1 = RHO ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
ROOT = jnp.asarray(np.linalg.cholesky(AR1), jnp.float32)
densities = jax.jit(cascade.log_densities)


def draw(key, count):
    """`[count, T, 1]` of `x' = rho x + sqrt(1 - rho^2) eps`."""
    return (jax.random.normal(key, (count, T)) @ ROOT.T)[..., None]


def test_with_weights_of_nothing_every_scale_is_a_gaussian_of_its_own_spread():
    x = draw(jax.random.key(0), 32)
    diffuser = cascade_diffuser(NetworkConfig("mixer", 8, 1), DiffuserConfig(), T, 1)
    state = jax.jit(diffuser.learner.init)(jax.random.key(1), x)
    nothing = state._replace(trained=jax.tree.map(jnp.zeros_like, state.trained))
    scales = haar.analysis(x, 1)
    found = densities(diffuser.cascade(nothing), x, rising(2, 1e-3, 1000.0))
    for i, part in enumerate((scales.coarse, *scales.details)):
        part = np.asarray(part)
        std = np.sqrt(np.square(part).mean())
        np.testing.assert_allclose(state.stds[i, 0], std, rtol=1e-5)
        np.testing.assert_allclose(found[i], stats.norm(0, std).logpdf(part).sum((1, 2)), atol=1e-3)
    with pytest.raises(UserError, match="8 rows have no 4 scales"):
        cascade_diffuser(NetworkConfig("mixer", 8, 1), DiffuserConfig(), T, 4)


def test_spreads_are_taken_of_windows_from_all_over_the_data():
    rows = WindowRows(np.arange(40.0, dtype=np.float32)[:, None], np.arange(33), np.full(33, 39))
    np.testing.assert_array_equal(SpreadDraw(T).view(rows)[:, 0, 0], np.arange(33))


@pytest.mark.slow
@pytest.mark.optimised
def test_bits_of_an_autoregression_are_its_entropy():
    config = DiffuserConfig(steps=1200, learning_rate=5e-3, ema=0.99, p_mean=-0.8, p_std=1.6)
    diffuser = cascade_diffuser(NetworkConfig("mixer", 32, 2), config, T, 1)
    state = jax.jit(diffuser.learner.init)(jax.random.key(1), draw(jax.random.key(0), 4096))
    pick = lambda key, data: draw(key, 128)  # noqa: E731
    state = fit(diffuser.learner.update, pick, state, (), key=jax.random.key(2), stop=config.steps, chunk=600)
    x = draw(jax.random.key(3), 512)
    found = densities(diffuser.cascade(state), x, rising(12, 0.02, 80.0)).sum(0)
    own = stats.multivariate_normal(np.zeros(T), AR1).logpdf(np.asarray(x)[..., 0])
    gap = bits_per_dimension(found - own, T).mean() * np.log(2)  # nats per entry above the closed form
    assert -0.02 < gap < 0.05, gap
