"""Conditioning a joint denoiser on clean entries, against the closed form of a correlated Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import exact, samplers
from jdp.diffusion.guidance import condition, inpaint
from jdp.diffusion.schedules import karras

N, T, D = 16_000, 3, 2
SIZE = T * D


def process():
    """A random walk of T steps of D numbers, far from independent: covariance `[T D, T D]`, mean 0."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(SIZE, SIZE))
    covariance = mix @ mix.T / SIZE + 0.05 * np.eye(SIZE)
    scale = 1 / np.sqrt(np.diag(covariance))
    return (covariance * scale[:, None] * scale[None]).astype(np.float32)


def samples(wrap):
    """Samples given that the first step is KNOWN, flat `[N, T D]`."""
    covariance = process()
    known = jnp.zeros((N, T, D)).at[:, 0].set(jnp.array([1.0, -0.5]))
    mask = jnp.zeros((N, T, D), bool).at[:, 0].set(True)
    denoiser = wrap(exact.correlated_gaussian(jnp.zeros(SIZE), covariance), known, mask)
    sigmas = karras(64, 0.002, 80.0)
    x = sigmas[0] * jax.random.normal(jax.random.key(0), (N, T, D))
    return np.asarray(jax.jit(samplers.dpmpp_2m)(denoiser, x, sigmas)).reshape(N, SIZE), covariance


def truth(covariance):
    """Mean and covariance of the steps after the first, given it."""
    a, b, c = covariance[:D, :D], covariance[D:, :D], covariance[D:, D:]
    gain = b @ np.linalg.inv(a)
    return gain @ np.array([1.0, -0.5]), c - gain @ b.T


@pytest.fixture(scope="module")
def conditioned():
    return samples(lambda *args: condition(*args, solver_steps=2, floor=1e-3))


def test_the_rest_has_the_conditional_mean_and_covariance(conditioned):
    x, covariance = conditioned
    mean, spread = truth(covariance)
    np.testing.assert_allclose(x[:, :D], np.tile([1.0, -0.5], (N, 1)), atol=1e-5)  # known, exactly
    np.testing.assert_allclose(x[:, D:].mean(0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(x[:, D:].T), spread, atol=0.04)


def test_inpainting_does_not(conditioned):
    x, covariance = samples(inpaint)
    mean, _ = truth(covariance)
    wrong = np.abs(x[:, D:].mean(0) - mean).max()
    right = np.abs(conditioned[0][:, D:].mean(0) - mean).max()
    assert wrong > 5 * right and wrong > 0.1  # the reason why `condition` exists


def test_nothing_known_changes_nothing():
    covariance = process()
    denoiser = exact.correlated_gaussian(jnp.zeros(SIZE), covariance)
    x, sigma = jax.random.normal(jax.random.key(1), (8, T, D)), jnp.full(8, 0.7)
    nothing = condition(denoiser, jnp.zeros((8, T, D)), jnp.zeros((8, T, D), bool))
    np.testing.assert_array_equal(nothing(x, sigma), denoiser(x, sigma))


def test_a_guided_denoiser_is_conditioned_with_the_jacobian_of_its_base():
    # A tilt by a linear energy shifts the mean by covariance @ slope and leaves the covariance alone, so
    # that the conditional of the tilted Gaussian has a closed form, and both Jacobians are equal.
    covariance = process()
    slope = np.array([0.0, 0.0, 0.6, 0.0, 0.0, -0.4], np.float32)
    base = exact.correlated_gaussian(jnp.zeros(SIZE), covariance)
    tilted = exact.correlated_gaussian(covariance @ slope, covariance)
    x, sigma = jax.random.normal(jax.random.key(2), (16, T, D)), jnp.full(16, 0.4)
    known, mask = jnp.ones((16, T, D)), jnp.zeros((16, T, D), bool).at[:, 0].set(True)
    own = condition(tilted, known, mask, solver_steps=2, floor=1e-3)(x, sigma)
    of_base = condition(tilted, known, mask, base=base, solver_steps=2, floor=1e-3)(x, sigma)
    np.testing.assert_allclose(own, of_base, atol=1e-5)
    # The exact posterior mean given x AND the known step: one more observation, without noise.
    precise = np.concatenate([np.full(D, 1e-6), np.full(SIZE - D, 0.4**2)])
    seen = np.asarray(jnp.where(mask, known, x)).reshape(16, SIZE)
    mean = covariance @ slope
    gain = covariance @ np.linalg.inv(covariance + np.diag(precise))
    expected = mean + (seen - mean) @ gain.T
    np.testing.assert_allclose(own.reshape(16, SIZE)[:, D:], expected[:, D:], atol=2e-3)
