"""Levels of their own for rows, time steps and entries: every sampler, matrices of levels, starts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import exact, samplers, schedules, warm_start
from jdp.types import bind

B, T = 3, 4
D = T  # what is aligned from the right would pass unseen
STDS = np.array([1.0, 0.5, 0.3, 0.1])
DENOISER, MAP = exact.gaussian(0.2, STDS), exact.gaussian_map(0.2, STDS)
ALL = {**samplers.SAMPLERS, "consistency": samplers.consistency, "flow_map": samplers.flow_map}
X = jax.random.normal(jax.random.key(0), (B, T, D))
KEY = jax.random.key(3)
DRAWING = {"dpmpp_2m_sde", "churned_heun", "churned_euler", "ddpm", "flow_sde", "consistency"}


def model_of(name):
    return MAP if name == "flow_map" else DENOISER


@pytest.fixture(scope="module")
def jitted():
    return {name: jax.jit(functools.partial(f, key=KEY, trace=True)) for name, f in ALL.items()}


def _blind(w, x, *levels):
    del levels
    return jnp.tanh(w * x)


BLIND = bind(_blind, jnp.float32(0.5))  # so that all rounding is the sampler's


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("prefix", [(B,), (1, T), (B, T, D)], ids=str)
def test_equal_rows_give_the_bits_of_the_plain_schedule(jitted, name, prefix):
    for sigmas in (schedules.karras(6), schedules.karras(6)[:-1]):
        plain = jitted[name](BLIND, sigmas[0] * X, sigmas)
        rows = jnp.broadcast_to(sigmas.reshape((-1,) + (1,) * len(prefix)), (len(sigmas), *prefix))
        found = jitted[name](BLIND, sigmas[0] * X, rows)
        if name.startswith("churned"):  # how much noise churn adds is a square root, see conftest.py
            np.testing.assert_allclose(found, plain, rtol=1e-3, atol=1e-3)
        elif name in DRAWING and len(prefix) == X.ndim:  # XLA multiplies the noise in another order
            np.testing.assert_allclose(found, plain, rtol=1e-6, atol=1e-6)
        elif name in DRAWING and jax.__version_info__ >= (0, 11):  # there in any shape
            np.testing.assert_allclose(found, plain, rtol=1e-5, atol=2e-6)
        else:
            np.testing.assert_array_equal(found, plain)


def posterior_mean(x, sigma, s):
    return 0.2 + s**2 / (s**2 + sigma**2) * (x - 0.2)


def entry_chain(name, x, levels, s, noise):
    """`[n + 1]`, one entry in float64: the papers' steps, and none where its level does not change."""
    n, chain, last = len(levels) - 1, [x], None
    for k in range(n):
        sigma, following = levels[k : k + 2]
        if sigma == following:
            last = None  # DPM-Solver++ begins anew
        elif name == "flow_map":
            x = 0.2 + (x - 0.2) * np.sqrt((s**2 + following**2) / (s**2 + sigma**2))
        elif name == "consistency":
            x = posterior_mean(x, sigma, s) + np.sqrt(max(following**2 - 0.002**2, 0)) * noise[k]
        elif name == "ddpm":
            r = (following / sigma) ** 2
            d = posterior_mean(x, sigma, s)
            x = d + r * (x - d) + following * np.sqrt(1 - r) * noise[k]
        elif name == "flow_sde":
            r, square = following / sigma, 0.7**2 / 2
            d = posterior_mean(x, sigma, s)
            x = d + r ** (1 + square) * (x - d) + following * np.sqrt(1 - r ** (2 * square)) * noise[k]
        elif name.startswith("dpmpp"):
            d = denoised = posterior_mean(x, sigma, s)
            if last is not None and following > 0 and k < n - 1:
                r = np.log(last[1] / sigma) / np.log(sigma / following)
                d = (1 + 1 / (2 * r)) * denoised - last[0] / (2 * r)
            eta, r = float(name == "dpmpp_2m_sde" and k < n - 1), following / sigma
            x = d + r ** (1 + eta) * (x - d) + eta * following * np.sqrt(1 - r**2) * noise[k]
            last = denoised, sigma
        else:
            hat = sigma
            if name.startswith("churned") and 0.05 <= sigma <= 50:
                hat = sigma * (1 + min(80 / n, np.sqrt(2) - 1))
            x = x + np.sqrt(hat**2 - sigma**2) * 1.003 * noise[k]
            slope = (x - posterior_mean(x, hat, s)) / hat
            ahead = x + (following - hat) * slope
            if name.endswith("heun") and following > 0 and k < n - 1:
                slope = (slope + (ahead - posterior_mean(ahead, following, s)) / following) / 2
            x = x + (following - hat) * slope
        chain.append(x)
    return np.array(chain)


def uneven():
    """`[12, B, T, D]`: chains that begin, wait, end and are held each at its own time."""
    down = np.asarray(schedules.karras(6, 0.02, 20.0), float)
    matrix = np.zeros((12, B, T, D))
    for b, t, d in np.ndindex(B, T, D):
        start = t + d // 2
        steps = np.clip(np.arange(12) - start - (np.arange(12) > start + 2) * (b == 1), 0, 6)
        matrix[:, b, t, d] = (1 + 0.2 * b) * down[steps]
    matrix[:, 2, 1] = 0.0  # known
    matrix[:, 0, 3, 0] = 2.0  # waits to the end
    return matrix


@pytest.mark.parametrize("name", list(ALL))
def test_every_entry_goes_down_its_own_levels(jitted, name):
    matrix = uneven()
    sigmas = jnp.asarray(matrix, jnp.float32)
    x = jnp.where(sigmas[0] > 0, sigmas[0], 1.0) * X
    noise = np.stack([jax.random.normal(k, x.shape) for k in jax.random.split(KEY, 11)]).astype(float)
    chain = np.asarray(jitted[name](model_of(name), x, sigmas))
    levels, start = np.asarray(sigmas, float), np.asarray(x, float)
    for b, t, d in np.ndindex(B, T, D):
        expected = entry_chain(name, start[b, t, d], levels[:, b, t, d], STDS[d], noise[:, b, t, d])
        scale = np.sqrt(STDS[d] ** 2 + levels[:, b, t, d] ** 2)
        # How much noise churn adds is a square root, see conftest.py.
        atol = 2e-3 if name.startswith("churned") else 3e-4
        np.testing.assert_allclose(chain[:, b, t, d] / scale, expected / scale, atol=atol, rtol=1e-4)
    still = matrix[1:] == matrix[:-1]
    assert still.any(0).sum() > 10 and still[:, 2, 1].all()
    np.testing.assert_array_equal(chain[1:][still], chain[:-1][still])


@pytest.mark.parametrize("name", list(ALL))
def test_levels_per_step_equal_rows_that_are_sampled_alone(jitted, name):
    """`T = D`, the matrix `[n + 1, 1, T]`: time step t is sampled as if all had its levels."""
    scales = jnp.array([1.0, 0.3, 2.0, 0.05])
    sigmas = schedules.karras(5, 0.02, 20.0)
    matrix = sigmas[:, None, None] * scales[None, None]
    x = matrix[0][..., None] * X
    found = jitted[name](model_of(name), x, matrix)
    for t in range(T):
        alone = jitted[name](model_of(name), x, matrix[:, :, t])
        atol = 1e-3 if name.startswith("churned") else 1e-6  # as above
        np.testing.assert_allclose(found[:, :, t], alone[:, :, t], rtol=1e-5, atol=atol)


def test_levels_that_are_no_prefix_are_refused(jitted):
    sigmas = jnp.ones((4, T))  # would fit from the right
    for name in ALL:
        with pytest.raises((ValueError, TypeError)):
            jitted[name](model_of(name), X, sigmas)


def test_a_pyramid_and_a_rolling_window():
    sigmas = schedules.karras(6)
    for delay in (0, 1, 6):
        matrix = np.asarray(schedules.pyramid(sigmas, T, delay))
        assert matrix.shape == (7 + delay * (T - 1), 1, T)
        for t in range(T):
            np.testing.assert_array_equal(matrix[delay * t : delay * t + 7, 0, t], sigmas)
            assert (matrix[: delay * t, 0, t] == sigmas[0]).all() and (
                matrix[delay * t + 6 :, 0, t] == 0
            ).all()
    long = schedules.karras(12)
    window = np.asarray(schedules.rolling(long, T))
    assert window.shape == (4, 1, T)
    np.testing.assert_array_equal(window[0, 0, :-1], window[-1, 0, 1:])  # moved by one, it begins as it ended
    np.testing.assert_array_equal(np.concatenate([window[:-1, 0, t] for t in range(T)][::-1]), long[:-1])
    assert window[-1, 0, 0] == 0 and window[0, 0, -1] == long[0] and (np.diff(window, axis=0) < 0).all()
    for wrong in [lambda: schedules.pyramid(sigmas, 0), lambda: schedules.rolling(sigmas, 4)]:
        with pytest.raises(ValueError, match="length"):
            wrong()


def test_a_matrix_is_truncated_entry_by_entry():
    sigmas = schedules.karras(6)
    start = float(sigmas[2])
    plain = schedules.truncated(sigmas, start)
    rows = jnp.broadcast_to(sigmas[:, None, None], (7, 1, T))
    found = schedules.truncated(rows, start)
    np.testing.assert_array_equal(found, np.broadcast_to(plain[:, None, None], (5, 1, T)))
    pyramid = np.asarray(schedules.pyramid(sigmas, T))
    found = np.asarray(schedules.truncated(pyramid, start))
    np.testing.assert_array_equal(found, np.minimum(pyramid, start)[2:])
    assert (found[0] == start).all() and found[1, 0, 0] < start
    with pytest.raises(ValueError, match="start"):
        schedules.truncated(rows, 100.0)


def test_a_warm_start_of_every_step_at_its_level():
    previous, key = jnp.ones((B, T, D)), jax.random.key(1)
    top, levels = jnp.array([[80.0, 80.0, 40.0, 0.0]]), jnp.array([[80.0, 48.0, 0.0, 0.0]])
    found = np.asarray(jax.jit(warm_start)(key, previous, levels, top))
    noise = jax.random.normal(key, previous.shape)
    np.testing.assert_allclose(found[:, 0], 80 * noise[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], 0.8 * previous[:, 1] + 48 * noise[:, 1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[:, 2:], previous[:, 2:])
