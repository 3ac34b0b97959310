"""The training loss, Adam, the schedule and the averaged weights against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm
from jdp.learning.averaged import ema_decay
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.learning.optimiser import warmup_cosine
from jdp.networks import NetworkConfig, make
from jdp.types import named_keys

B, T, D = 6, 8, 5


def _affine(params, x, c_noise):
    return params["w"] * x + params["b"] * c_noise[:, None, None]


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_loss_and_gradient_equal_numpy(sigma_data):
    key, sd = jax.random.key(4), sigma_data
    params = {"w": jnp.float32(0.7), "b": jnp.float32(-0.4)}
    x0 = sd * jax.random.normal(jax.random.key(0), (B, T, D))

    def loss_fn(p):
        return losses.denoising(key, _affine, p, x0, p_mean=-0.5, p_std=0.8, sigma_data=sd)[0]

    loss, gradient = jax.value_and_grad(loss_fn)(params)

    keys = named_keys(key, "level", "noise")
    s = np.exp(-0.5 + 0.8 * np.asarray(jax.random.normal(keys["level"], (B,)), float))[:, None, None]
    y = np.asarray(x0, float)
    x = y + s * np.asarray(jax.random.normal(keys["noise"], x0.shape), float)
    # c_out^2 lambda = 1, so the loss is that of F against (y - c_skip x) / c_out.
    total = s**2 + sd**2
    target = (y - sd**2 / total * x) * np.sqrt(total) / (s * sd)
    inputs, levels = x / np.sqrt(total), np.log(s) / 4 + 0 * x
    error = 0.7 * inputs - 0.4 * levels - target
    np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(gradient["w"], np.mean(2 * error * inputs), rtol=1e-4)
    np.testing.assert_allclose(gradient["b"], np.mean(2 * error * levels), rtol=1e-4)
    if sd == 1:  # rows of a denoiser, whatever it is made of: the same loss
        rows = losses.of_denoiser(key, edm(_affine, params), x0, p_mean=-0.5, p_std=0.8)
        np.testing.assert_allclose(rows, np.mean(error**2, axis=(1, 2)), rtol=1e-4)


def test_the_loss_is_least_at_the_exact_denoiser():
    """For N(0, 1) data `D = x / (1 + sigma^2)`, which is F = 0; the loss is then 1: noise that stays."""
    x0 = jax.random.normal(jax.random.key(1), (4_000, T, D))

    def at(w, b):
        params = {"w": jnp.float32(w), "b": jnp.float32(b)}
        return float(losses.denoising(jax.random.key(2), _affine, params, x0)[0])

    np.testing.assert_allclose(at(0, 0), 1.0, rtol=0.02)
    assert at(0, 0) < min(at(0.1, 0), at(-0.1, 0), at(0, 0.2), at(0, -0.2))


@pytest.mark.parametrize("steps", [10, 1000])
def test_the_learning_rate_reaches_its_peak_and_zero(steps):
    rate = warmup_cosine(2e-3, steps)
    warm = steps // 10
    k = np.arange(steps + 1)
    cosine = 1e-3 * (1 + np.cos(np.pi * (k - warm) / (steps - warm)))
    expected = np.where(k < warm, 2e-4 + k / warm * 1.8e-3, cosine)
    np.testing.assert_allclose(
        [float(rate(float(i))) for i in k[:: max(steps // 50, 1)]],
        expected[:: max(steps // 50, 1)],
        atol=1e-8,
    )
    np.testing.assert_allclose([rate(float(warm)), rate(float(steps))], [2e-3, 0.0], atol=1e-9)


def test_the_average_warms_up():
    decays = [float(ema_decay(0.999, jnp.int32(k))) for k in (0, 1, 90, 8_989, 100_000)]
    np.testing.assert_allclose(decays, [0.1, 2 / 11, 0.91, 8990 / 8999, 0.999], rtol=1e-6)


def test_updates_equal_adam_and_a_moving_average_in_numpy():
    config, network = DiffuserConfig(steps=40, learning_rate=1e-2, ema=0.5), NetworkConfig("mixer", 8, 1)
    diffuser, net = trajectory_diffuser(network, config, T), make(network)
    x0 = jax.random.normal(jax.random.key(0), (B, T, D))
    state = diffuser.learner.init(jax.random.key(1), x0)
    update = jax.jit(diffuser.learner.update)
    gradient = jax.jit(jax.grad(lambda p, key: losses.denoising(key, net.apply, p, x0)[0]))
    flat = lambda tree: np.concatenate([np.asarray(a, float).ravel() for a in jax.tree.leaves(tree)])  # noqa: E731

    p = average = flat(state.params)
    first, second = np.zeros_like(p), np.zeros_like(p)
    for k in range(6):
        key = jax.random.key(10 + k)
        g = flat(gradient(state.params, key))
        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes int32 with floats
            state, _ = update(key, state, x0)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        unbiased = first / (1 - 0.9 ** (k + 1)), second / (1 - 0.999 ** (k + 1))
        rate = 1e-3 + k / 4 * 9e-3 if k < 4 else 5e-3 * (1 + np.cos(np.pi * (k - 4) / 36))
        p = p - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        decay = min(0.5, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * p  # never the other way round
        np.testing.assert_allclose(flat(state.params), p, atol=2e-5)
        np.testing.assert_allclose(flat(state.ema), average, atol=2e-5)
    assert int(state.step) == 6
    # The denoiser is of the averaged weights.
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(diffuser.denoiser(state)), jax.tree.leaves(state.ema), strict=True)
    )


def test_equal_settings_are_the_same_functions():
    def made():
        return trajectory_diffuser(NetworkConfig("mixer"), DiffuserConfig(steps=40), T)

    assert made() is made()
