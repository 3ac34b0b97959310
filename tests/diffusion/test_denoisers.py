"""Levels of every shape, EDM's preconditioning, scores and the exact denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import edm, exact, score
from jdp.networks import NetworkConfig, make
from jdp.types import expand

B = T = 8  # equal, so that an alignment from the right would not be noticed by shapes
D = 5
KINDS = ("unet", "residual_unet", "mixer", "transformer")


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_levels_align_from_the_left():
    x, levels = draw(0, B, T, D), jnp.arange(1.0, B + 1)
    rows = np.asarray(expand(levels, x) + jnp.zeros_like(x))
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(1.0, B + 1)[:, None, None], x.shape))
    steps = np.asarray(expand(draw(1, B, T), x) + jnp.zeros_like(x))
    np.testing.assert_array_equal(steps, np.broadcast_to(np.asarray(draw(1, B, T))[..., None], x.shape))


@pytest.mark.parametrize("shape", [(), (B,), (B, T), (B, T, D)])
def test_every_shape_of_levels_equals_the_entry_by_entry_denoiser(shape):
    x, sigma = draw(0, B, T, D), jnp.exp(draw(1, *shape))
    s = np.asarray(sigma, float).reshape(shape + (1,) * (3 - len(shape)))
    expected = (0.25 * np.asarray(x, float) + s**2 * 1.5) / (0.25 + s**2)
    np.testing.assert_allclose(exact.gaussian(1.5, 0.5)(x, sigma), expected, rtol=1e-5, atol=1e-6)
    gradient = (1.5 - np.asarray(x, float)) / (0.25 + s**2)  # of log N(x; 1.5, .25 + sigma^2)
    np.testing.assert_allclose(score(exact.gaussian(1.5, 0.5), x, sigma), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(D,), (T, D), (B + 1,), (B, T + 1), (B, T, D, 1)])
def test_levels_that_are_no_prefix_are_refused(shape):
    with pytest.raises(ValueError, match="prefix"):
        exact.gaussian(0.0, 1.0)(
            draw(0, 16, T, D) if shape == (B + 1,) else draw(0, B, T, D), jnp.ones(shape)
        )


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
@pytest.mark.parametrize("shape", [(), (B,), (B, T)])
def test_edm_preconditioning(sigma_data, shape):
    """Table 1 of arXiv 2206.00364, with a network that shows its inputs."""
    x, sigma, sd = draw(0, B, T, D), jnp.exp(2 * draw(1, *shape)), sigma_data
    seen = {}

    def apply(params, scaled, c_noise):
        seen.update(x=scaled, c_noise=c_noise)
        return params * jnp.sin(scaled)

    found = edm(apply, jnp.float32(3.0), sigma_data=sd)(x, sigma)
    s, y = np.asarray(sigma, float), np.asarray(x, float)
    wide = s.reshape(shape + (1,) * (3 - len(shape)))
    total = wide**2 + sd**2
    c_in, c_skip, c_out = 1 / np.sqrt(total), sd**2 / total, wide * sd / np.sqrt(total)
    np.testing.assert_allclose(seen["x"], c_in * y, rtol=1e-5)
    np.testing.assert_allclose(seen["c_noise"], np.log(s) / 4 + np.zeros(shape or (B,)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, c_skip * y + c_out * 3 * np.sin(c_in * y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(B, T), (B, T, D)])
@pytest.mark.parametrize("kind", KINDS)
def test_entries_at_level_zero_stay_fixed(kind, shape):
    net = make(NetworkConfig(kind, features=8, blocks=2))
    x = 3 * draw(0, B, T, D)
    params = net.init(jax.random.key(1), x, jnp.zeros(shape))
    # Zero-initialised layers would hide a leak.
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), params)
    clean = jax.random.bernoulli(jax.random.key(3), 0.5, shape)
    sigma = jnp.where(clean, 0.0, jnp.exp(draw(4, *shape)))
    denoised = np.asarray(jax.jit(edm(net.apply, params))(x, sigma))
    mask = np.broadcast_to(np.asarray(clean).reshape(shape + (1,) * (3 - len(shape))), x.shape)
    assert np.isfinite(denoised).all()
    np.testing.assert_array_equal(denoised[mask], np.asarray(x)[mask])
    assert (denoised[~mask] != np.asarray(x)[~mask]).all()


@pytest.mark.parametrize("stds", [(0.5, 0.3, 0.6), (0.0, 0.0, 0.0)])
def test_mixture_equals_the_brute_force_posterior_mean(stds):
    weights, means = np.array([0.2, 0.5, 0.3]), np.array([[-1.0, 2.0], [0.5, 0.0], [1.0, 1.0]])
    x, sigma = np.asarray(draw(0, B, T, 2), float), np.exp(np.linspace(-1, 3, B))
    denoiser = exact.mixture(weights, means, np.array(stds))
    found = np.asarray(denoiser(jnp.asarray(x, jnp.float32), jnp.asarray(sigma, jnp.float32)))
    # E[x0 | x] by a sum over clean points: the points themselves, or a fine grid about each of them.
    g = np.linspace(-6, 6, 121) if any(stds) else np.zeros(1)
    offset = np.stack(np.meshgrid(g, g), -1).reshape(-1, 2)
    prior = np.exp(-0.5 * (offset**2).sum(-1))
    clean = np.concatenate([m + s * offset for m, s in zip(means, stds, strict=True)])
    mass = np.concatenate([w * prior / prior.sum() for w in weights])
    for b in range(B):
        gap = ((x[b, :, None] - clean) ** 2).sum(-1)
        likelihood = np.exp(-0.5 * (gap - gap.min(-1, keepdims=True)) / sigma[b] ** 2) * mass
        expected = likelihood @ clean / likelihood.sum(-1, keepdims=True)
        np.testing.assert_allclose(found[b], expected, atol=2e-3 if any(stds) else 1e-4)


def test_correlated_gaussian():
    root = np.asarray(draw(0, 6, 6), float)
    covariance, mean, x = (
        root @ root.T + 0.1 * np.eye(6),
        np.arange(6.0),
        np.asarray(draw(1, B, 2, 3), float),
    )
    sigma = np.exp(np.linspace(-2, 2, B))
    denoiser = exact.correlated_gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32))
    found = denoiser(jnp.asarray(x, jnp.float32), jnp.asarray(sigma, jnp.float32))
    for b in range(B):
        gain = covariance @ np.linalg.inv(covariance + sigma[b] ** 2 * np.eye(6))
        np.testing.assert_allclose(found[b].reshape(-1), mean + gain @ (x[b].reshape(-1) - mean), atol=2e-4)
