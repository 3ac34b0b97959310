"""Levels of their own for single entries: the exact denoiser, `hold` and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import edm, exact, losses, samplers
from jdp.diffusion.guidance import hold
from jdp.diffusion.schedules import karras
from jdp.networks.conditional_mlp import conditional_mlp, conditioned
from jdp.types import named_keys

N, B = 4, 9
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(N, N))
COVARIANCE, MEAN = ROOT @ ROOT.T / N + 0.1 * np.eye(N), np.array([0.5, -1.0, 2.0, 0.0])
DENOISER = exact.correlated_gaussian(jnp.asarray(MEAN, jnp.float32), COVARIANCE)
MASK = np.array([True, False, True, False])
KNOWN, FREE = np.flatnonzero(MASK), np.flatnonzero(~MASK)


def f32(x):
    return jnp.asarray(x, jnp.float32)


def posterior_mean(x, sigma):
    """In float64, one row, a level per entry."""
    gain = COVARIANCE @ np.linalg.inv(COVARIANCE + np.diag(np.square(sigma)))
    return MEAN + gain @ (x - MEAN)


def test_the_exact_denoiser_with_a_level_per_entry():
    sigma = np.exp(RNG.uniform(-4, 4.4, (B, N)))
    sigma[RNG.random((B, N)) < 0.3] = 0.0
    x = MEAN + np.sqrt(1 + sigma**2) * RNG.normal(size=(B, N))
    found = np.asarray(jax.jit(DENOISER)(f32(x), f32(sigma)))
    expected = np.stack([posterior_mean(x[b], sigma[b]) for b in range(B)])
    np.testing.assert_allclose(found, expected, atol=3e-4)
    np.testing.assert_array_equal(found[sigma == 0], np.asarray(f32(x))[sigma == 0])


def test_equal_levels_agree_with_one_level():
    x, sigma = f32(MEAN + 2 * RNG.normal(size=(B, N))), f32(np.exp(np.linspace(-3, 4, B)))
    each = jnp.broadcast_to(sigma[:, None], (B, N))
    np.testing.assert_allclose(DENOISER(x, each), DENOISER(x, sigma), atol=2e-4)
    in_time = DENOISER(x.reshape(B, 2, 2), each[:, ::2])  # a level per step
    np.testing.assert_allclose(in_time.reshape(B, N), DENOISER(x, sigma), atol=2e-4)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_hold_at_level_zero_is_the_conditional_denoiser(sigma):
    """Of `N(x_free | x_known)`, in closed form."""
    known, x = RNG.normal(size=(B, N)) + MEAN, sigma * RNG.normal(size=(B, N))
    out = np.asarray(hold(DENOISER, f32(known), MASK[None])(f32(x), jnp.full(B, sigma)))
    np.testing.assert_array_equal(out[:, KNOWN], np.asarray(f32(known))[:, KNOWN])
    gain = COVARIANCE[np.ix_(FREE, KNOWN)] @ np.linalg.inv(COVARIANCE[np.ix_(KNOWN, KNOWN)])
    covariance = COVARIANCE[np.ix_(FREE, FREE)] - gain @ COVARIANCE[np.ix_(KNOWN, FREE)]
    shrink = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(len(FREE)))
    for b in range(B):
        mean = MEAN[FREE] + gain @ (known[b] - MEAN)[KNOWN]
        np.testing.assert_allclose(out[b, FREE], mean + shrink @ (x[b, FREE] - mean), atol=3e-4)


def test_hold_at_a_high_level_is_the_marginal_denoiser():
    level = 1e3
    noise, x = level * RNG.normal(size=(B, N)), RNG.normal(size=(B, N))
    out = np.asarray(hold(DENOISER, f32(noise), MASK[None], level)(f32(x), jnp.full(B, 0.7)))
    marginal = exact.correlated_gaussian(f32(MEAN[FREE]), COVARIANCE[np.ix_(FREE, FREE)])
    # What is left of the information in entries under noise of level L falls as std / L.
    np.testing.assert_allclose(out[:, FREE], marginal(f32(x[:, FREE]), jnp.full(B, 0.7)), atol=5e-3)


def test_every_sampler_ends_at_what_is_held():
    known = f32(RNG.normal(size=(B, N)))
    x = 80 * jax.random.normal(jax.random.key(0), (B, N))
    for name, sampler in samplers.SAMPLERS.items():
        out = np.asarray(
            jax.jit(sampler)(hold(DENOISER, known, MASK[None]), x, karras(6), key=jax.random.key(1))
        )
        np.testing.assert_array_equal(out[:, KNOWN], np.asarray(known)[:, KNOWN], err_msg=name)
        assert np.isfinite(out).all()


def test_holds_nest():
    known, x, sigma = f32(RNG.normal(size=(B, N))), f32(RNG.normal(size=(B, N))), jnp.full(B, 0.5)
    first, second = np.array([True, False, False, False]), np.array([False, False, True, False])
    nested = hold(hold(DENOISER, known, first[None], 0.3), known, second[None])
    level = f32(np.where(first, 0.3, 0.0))[None]
    both = hold(DENOISER, known, (first | second)[None], jnp.broadcast_to(level, (B, N)))
    np.testing.assert_array_equal(nested(x, sigma), both(x, sigma))


def perturbed(params):
    """Zero-initialised layers would hide a leak."""
    return jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), params)


def test_the_conditional_network_knows_the_level_of_every_group():
    net = conditional_mlp(16, 1, groups=(0, 2))
    x, condition = f32(RNG.normal(size=(B, N))), f32(RNG.normal(size=(B, 3)))
    params = perturbed(net.init(jax.random.key(0), x, x, condition))
    denoiser = jax.jit(edm(conditioned(net.apply), (params, condition)))
    sigma = np.ones((B, N)) * [0.5, 0.5, 2.0, 2.0]
    out = denoiser(x, f32(sigma))
    for changed in ([0.1, 0.1, 2.0, 2.0], [0.5, 0.5, 3.0, 3.0]):  # each group's level reaches the other
        other = denoiser(x, f32(np.ones((B, N)) * changed))
        assert (np.asarray(other) != np.asarray(out)).all()
    one = denoiser(x, jnp.full(B, 0.5))  # one level is every group's level
    np.testing.assert_allclose(one, denoiser(x, jnp.full((B, N), 0.5)), atol=1e-6)
    known = denoiser(x, f32(sigma * [0, 0, 1, 1]))
    np.testing.assert_array_equal(np.asarray(known)[:, :2], np.asarray(x)[:, :2])
    assert (np.asarray(known)[:, 2:] != np.asarray(x)[:, 2:]).all()


def test_known_entries_contribute_nothing_to_the_loss():
    apply = lambda p, x, c: p * jnp.sin(x)  # noqa: E731
    x0, noise_key = f32(RNG.normal(size=(B, N))), jax.random.key(3)
    sigma = np.exp(RNG.normal(size=(B, N)))
    sigma[:, 1] = 0.0

    def value(p, s):
        return losses.denoising_at(noise_key, apply, p, x0, f32(s))[0]

    loss, gradient = jax.value_and_grad(value)(jnp.float32(0.7), sigma)
    noise = np.asarray(jax.random.normal(noise_key, x0.shape), float)
    total, y = 1 + sigma**2, np.asarray(x0, float)
    x = y + sigma * noise
    with np.errstate(divide="ignore", invalid="ignore"):
        target = (y - x / total) * np.sqrt(total) / sigma
    error = (0.7 * np.sin(x / np.sqrt(total)) - target)[:, [0, 2, 3]]
    slope = np.sin(x / np.sqrt(total))[:, [0, 2, 3]]
    np.testing.assert_allclose(loss, (error**2).sum() / (B * N), rtol=1e-5)
    np.testing.assert_allclose(gradient, (2 * error * slope).sum() / (B * N), rtol=1e-4)
    # One level a row is the loss of vectors.
    keys = named_keys(jax.random.key(4), "level", "noise")
    row = jnp.exp(-1.2 + 1.2 * jax.random.normal(keys["level"], (B,)))
    np.testing.assert_allclose(
        losses.denoising(jax.random.key(4), apply, jnp.float32(0.7), x0)[0],
        losses.denoising_at(keys["noise"], apply, jnp.float32(0.7), x0, row)[0],
        rtol=1e-6,
    )
