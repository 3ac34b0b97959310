"""Samplers against float64 recursions, the spread of Gaussians, and their orders of convergence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import exact, samplers
from jdp.diffusion.schedules import karras

STDS = np.array([1.0, 0.3, 0.1, 0.03])  # one channel each
SIGMA_MAX = 80.0
DENOISER = exact.gaussian(0.0, STDS)


def posterior_mean(x, sigma):
    return STDS**2 / (STDS**2 + sigma**2) * x


def numpy_euler(x, sigma, following):
    return x + (following - sigma) * (x - posterior_mean(x, sigma)) / sigma


def numpy_heun(x, sigma, following):
    if following == 0:
        return numpy_euler(x, sigma, following)
    d = (x - posterior_mean(x, sigma)) / sigma
    ahead = x + (following - sigma) * d
    d_ahead = (ahead - posterior_mean(ahead, following)) / following
    return x + (following - sigma) * (d + d_ahead) / 2


def numpy_chain(name, x, sigmas, noise):
    """`[n + 1, B, 4]`, from the papers' algorithms, in float64."""
    step = numpy_heun if name.endswith("heun") else numpy_euler
    n, chain, last = len(sigmas) - 1, [x], None
    for k in range(n):
        sigma, following = sigmas[k], sigmas[k + 1]
        if name == "ddpm":
            ratio = (following / sigma) ** 2
            x = ratio * x + (1 - ratio) * posterior_mean(x, sigma)
            x = x + following * np.sqrt(1 - ratio) * noise[k]
        elif name == "flow_sde":
            ratio, square, d = following / sigma, 0.7**2 / 2, posterior_mean(x, sigma)
            x = (
                d
                + ratio ** (1 + square) * (x - d)
                + following * np.sqrt(1 - ratio ** (2 * square)) * noise[k]
            )
        elif name.startswith("dpmpp"):
            d = denoised = posterior_mean(x, sigma)
            if 0 < k < n - 1:
                h, h_last = np.log(sigma / following), np.log(sigmas[k - 1] / sigma)
                r = h_last / h
                d = (1 + 1 / (2 * r)) * denoised - last / (2 * r)
            eta = float(name == "dpmpp_2m_sde" and k < n - 1)  # the last step brings no noise
            ratio = (following / sigma) ** (1 + eta)
            x, last = ratio * x + (1 - ratio) * d, denoised
            x = x + eta * following * np.sqrt(1 - (following / sigma) ** 2) * noise[k]
        else:
            hat = sigma
            if name.startswith("churned") and 0.05 <= sigma <= 50:
                hat = sigma * (1 + min(80 / n, np.sqrt(2) - 1))
            x = x + np.sqrt(hat**2 - sigma**2) * 1.003 * noise[k]
            # The last step of every sampler is Euler's.
            x = (step if k < n - 1 else numpy_euler)(x, hat, following)
        chain.append(x)
    return np.stack(chain)


def schedule(n, end):
    """Karras levels for `end` 0, else levels that stop at `end`."""
    if end == 0:
        return karras(n)
    return jnp.asarray(np.geomspace(SIGMA_MAX, end, n + 1), jnp.float32)


@pytest.fixture(scope="module")
def jitted():
    return {name: jax.jit(f, static_argnames="trace") for name, f in samplers.SAMPLERS.items()}


@pytest.mark.parametrize("name", list(samplers.SAMPLERS))
@pytest.mark.parametrize(("n", "end"), [(18, 0.0), (18, 0.05), (1, 0.05), (2, 0.0)])
def test_chain_equals_its_float64_recursion(jitted, name, n, end):
    sigmas, key = schedule(n, end), jax.random.key(3)
    x = SIGMA_MAX * jax.random.normal(jax.random.key(0), (16, 4))
    noise = [np.asarray(jax.random.normal(k, x.shape), float) for k in jax.random.split(key, n)]
    expected = numpy_chain(name, np.asarray(x, float), np.asarray(sigmas, float), noise)
    chain = np.asarray(jitted[name](DENOISER, x, sigmas, key=key, trace=True))
    assert chain.shape == (n + 1, 16, 4)
    np.testing.assert_array_equal(chain[0], x)
    # Relative to s, and on the way to the spread of that level.
    spread = np.sqrt(STDS**2 + np.asarray(sigmas, float)[:, None, None] ** 2)
    # How much noise churn adds is a square root, see conftest.py.
    atol = 6e-4 if name.startswith("churned") else 1e-4
    np.testing.assert_allclose(chain / spread, expected / spread, atol=atol, rtol=2e-5)
    final = jitted[name](DENOISER, x, sigmas, key=key)
    np.testing.assert_allclose(np.asarray(final) / STDS, chain[-1] / STDS, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "n", "tolerance"), [("heun", 64, 0.01), ("dpmpp_2m", 64, 0.01), ("euler", 256, 0.021)]
)
def test_spread_of_a_deterministic_sampler(jitted, name, n, tolerance):
    # On a Gaussian the sampler is x -> m x: the std is m sigma_max, without sampling noise.
    final = jitted[name](DENOISER, jnp.full((1, 4), SIGMA_MAX), karras(n))
    np.testing.assert_allclose(np.asarray(final[0]) / STDS, 1.0, atol=tolerance)


def test_spread_of_churned_heun(jitted):
    x = SIGMA_MAX * jax.random.normal(jax.random.key(1), (30_000, 4))
    final = np.asarray(jitted["churned_heun"](DENOISER, x, karras(160), key=jax.random.key(2)))
    sigmas, variance = np.asarray(karras(160), float), np.full(4, SIGMA_MAX**2)
    for sigma, following in itertools.pairwise(sigmas):
        hat = sigma * (1 + (np.sqrt(2) - 1 if 0.05 <= sigma <= 50 else 0))  # 80 / 160 is above the bound
        variance += (hat**2 - sigma**2) * 1.003**2
        variance *= numpy_heun(np.ones(4), hat, following) ** 2
    np.testing.assert_allclose(np.sqrt(variance) / STDS, 1.0, atol=0.02)
    # 30,000 samples know a std to .4 %; the predictor of the un-churned state would be 21 % off.
    np.testing.assert_allclose(final.std(0) / np.sqrt(variance), 1.0, atol=0.015)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(jitted, name, order):
    def error(n):  # of the wide channel, on levels that are smooth functions of k / n
        sigmas = np.geomspace(4.0, 0.5, n + 1)
        final = jitted[name](DENOISER, jnp.ones((1, 4)), jnp.asarray(sigmas, jnp.float32))
        return abs(float(final[0, 0]) - np.sqrt((1 + 0.5**2) / (1 + 4.0**2)))

    coarse, middle, fine = error(16), error(32), error(64)
    np.testing.assert_allclose(np.log2([coarse / middle, middle / fine]), order, atol=0.3)


def test_a_churned_sampler_needs_a_key():
    with pytest.raises(ValueError, match="key"):
        samplers.churned_heun(DENOISER, jnp.ones((1, 4)), karras(4), key=None)


@pytest.mark.parametrize("name", list(samplers.SAMPLERS))
def test_network_calls_are_counted(name):
    n, calls = 5, []

    def denoiser(x, sigma):
        jax.debug.callback(lambda: calls.append(1))
        return 0.5 * x

    jax.block_until_ready(
        samplers.SAMPLERS[name](denoiser, jnp.ones((2, 1)), karras(n), key=jax.random.key(0))
    )
    jax.effects_barrier()
    assert len(calls) == samplers.network_calls[name](n)


def test_karras_levels():
    k = np.arange(10)
    ramp = 80 ** (1 / 7) + k / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
    np.testing.assert_allclose(karras(10), [*ramp**7, 0.0], rtol=2e-5)
    for wrong in [(1,), (8, 0.0), (8, 2.0, 1.0)]:
        with pytest.raises(ValueError):
            karras(*wrong)
