"""Times and levels of VP diffusion and rectified flow, DDPM's discrete levels, truncation, warm starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import samplers, schedules, warm_start
from jdp.diffusion.times import COSINE, FLOW, LINEAR, SCALED_LINEAR, TO_DATA, at_same_time


def numpy_level(process, t):
    """From the definitions of `alpha(t)`, in float64."""
    if process is FLOW:
        return t / (1 - t)
    if process is LINEAR:
        variance = np.exp(-(0.1 * t + 0.5 * 19.9 * t**2))
    elif process is SCALED_LINEAR:
        first, last = np.sqrt([0.1, 20])
        variance = np.exp(-((first + t * (last - first)) ** 3 - first**3) / (3 * (last - first)))
    else:
        f = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
        variance = f(t) / f(0)
    return np.sqrt(1 / variance - 1)


@pytest.mark.parametrize(
    "process", [COSINE, LINEAR, SCALED_LINEAR, FLOW], ids=["cosine", "linear", "scaled_linear", "flow"]
)
def test_times_and_levels_are_inverse(process):
    t = np.linspace(1e-3, process.last, 200)
    level = process.level(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(level, numpy_level(process, t), rtol=6e-5)
    np.testing.assert_allclose(process.time(level), t, rtol=2e-6)
    sigma = jnp.asarray(np.geomspace(1e-3, 36 if process is SCALED_LINEAR else 80, 200), jnp.float32)
    np.testing.assert_allclose(process.level(process.time(sigma)), sigma, rtol=3e-5)
    assert float(process.time(jnp.float32(0))) == float(process.level(jnp.float32(0))) == 0
    assert 0.99 < float(process.time(jnp.float32(1e6))) <= 1


@pytest.mark.parametrize(
    ("schedule", "process", "first"),
    [(schedules.vp_cosine, COSINE, 118.8), (schedules.vp_linear, LINEAR, 152.2), (schedules.flow, FLOW, 999)],
)
def test_even_times(schedule, process, first):
    sigmas = np.asarray(schedule(8))
    np.testing.assert_allclose(sigmas, numpy_level(process, process.last * (1 - np.arange(9) / 8)), rtol=6e-5)
    np.testing.assert_allclose(sigmas[0], first, rtol=1e-3)
    assert sigmas[-1] == 0 and (np.diff(sigmas) < 0).all()
    for wrong in [(0,), (4, 1.1)]:
        with pytest.raises(ValueError):
            schedule(*wrong)


def test_a_flow_to_data_is_the_flow_with_its_time_reversed_from_pure_noise():
    t = np.linspace(1e-3, 1, 200)
    level = TO_DATA.level(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(level, FLOW.level(1 - t), rtol=6e-5, atol=1e-7)
    np.testing.assert_allclose(TO_DATA.time(level), t, rtol=2e-6)
    sigmas = np.asarray(schedules.flow_to_data(8))
    np.testing.assert_allclose(sigmas[1:], numpy_level(FLOW, 1 - np.arange(1, 9) / 8), rtol=1e-6)
    assert 1e7 < sigmas[0] < np.inf
    with pytest.raises(ValueError):
        schedules.flow_to_data(0)


def cosine_betas(n):
    f = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
    k = np.arange(n)
    return np.minimum(1 - f((k + 1) / n) / f(k / n), 0.999)


@pytest.mark.parametrize("n", [1, 20, 256])
def test_ddpm_levels(n):
    kept = np.cumprod(1 - cosine_betas(n))
    np.testing.assert_allclose(schedules.ddpm_cosine(n), [*np.sqrt((1 - kept) / kept)[::-1], 0], rtol=1e-6)


def test_the_ancestral_sampler_equals_ddpm_in_its_own_coordinate():
    """arXiv 2006.11239, equations 6 and 7, with a nonlinear guess of `x0`."""
    n, key = 20, jax.random.key(5)
    betas = cosine_betas(n)
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    noise = [np.asarray(jax.random.normal(k, (6, 4)), float) for k in jax.random.split(key, n)]
    x = start = np.asarray(jax.random.normal(jax.random.key(1), (6, 4)), float)
    for step, t in enumerate(reversed(range(n))):
        x0 = np.tanh(0.7 * x)
        mean = np.sqrt(before[t]) * betas[t] / (1 - kept[t]) * x0
        mean = mean + np.sqrt(1 - betas[t]) * (1 - before[t]) / (1 - kept[t]) * x
        variance = betas[t] * (1 - before[t]) / (1 - kept[t])
        x = mean + (0 if t == 0 else 0.5) * np.sqrt(variance) * noise[step]

    def denoiser(x, sigma):
        return jnp.tanh(0.7 * x / jnp.sqrt(1 + sigma**2)[:, None])

    sigmas = schedules.ddpm_cosine(n)
    wide = jnp.asarray(start / np.sqrt(kept[-1]), jnp.float32)
    found = samplers.ddpm(denoiser, wide, sigmas, key=key, temperature=0.5)
    np.testing.assert_allclose(found, x, atol=2e-5)


def test_truncation():
    sigmas = schedules.karras(10)
    np.testing.assert_array_equal(schedules.truncated(sigmas, float(sigmas[4])), sigmas[4:])
    between = schedules.truncated(sigmas, 1.0)
    assert between[0] == 1.0 and between[1] < 1.0
    np.testing.assert_array_equal(between[1:], sigmas[sigmas < 1.0])
    rounded = schedules.karras(16, sigma_min=0.02, sigma_max=20.0)
    assert rounded[0] != 20.0  # by half a unit in the last place
    np.testing.assert_array_equal(schedules.truncated(rounded, 20.0), rounded)
    for wrong in (0.0, 81.0):
        with pytest.raises(ValueError, match="start"):
            schedules.truncated(sigmas, wrong)


@pytest.mark.parametrize("jit", [False, True])
def test_a_warm_start_at_the_top_is_the_cold_start(jit):
    key, previous = jax.random.key(0), jax.random.normal(jax.random.key(1), (8, 5, 3))
    compiled = jax.jit if jit else lambda f: f
    start = compiled(warm_start)
    cold = compiled(lambda key, sigma: sigma * jax.random.normal(key, previous.shape))(key, 80.0)
    np.testing.assert_array_equal(start(key, previous, 80.0, 80.0), cold)
    rows = jnp.array([80.0, 0.0, 48.0, 1.0]).repeat(2)  # a level per row
    mixed = np.asarray(start(key, previous, rows, 80.0))
    np.testing.assert_array_equal(mixed[:2], cold[:2])
    np.testing.assert_array_equal(mixed[2:4], previous[2:4])
    np.testing.assert_allclose(mixed[4:6], 0.8 * previous[4:6] + 0.6 * cold[4:6], atol=1e-4)


def test_the_scaled_linear_process_is_that_of_a_thousand_discrete_steps():
    """Betas .0001 to .02 whose roots are linear: `sigma = sqrt(1 / prod(1 - beta) - 1)`."""
    betas = np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2
    discrete = np.sqrt(1 / np.cumprod(1 - betas) - 1)
    found = SCALED_LINEAR.level(jnp.arange(1, 1001) / 1000)
    np.testing.assert_allclose(found[9:], discrete[9:], rtol=0.03)
    np.testing.assert_allclose(found[-1], 36.06, rtol=1e-3)


def test_groups_have_the_levels_of_one_time():
    sigma = schedules.karras(6, 0.02, 5.0)
    other = at_same_time(sigma, SCALED_LINEAR, COSINE)
    np.testing.assert_allclose(COSINE.time(other), SCALED_LINEAR.time(sigma), atol=1e-6)
    assert other[-1] == 0 and (np.diff(other) < 0).all() and abs(other[0] - sigma[0]) > 1
    found = schedules.per_group([(sigma, (0, 3)), (other, (2, 1))])
    np.testing.assert_array_equal(found, np.stack([sigma, other, other, sigma], axis=1)[:, None])
    for wrong in ((0, 1), (3, 4)):
        with pytest.raises(ValueError, match="each of 4 entries stands in one group"):
            schedules.per_group([(sigma, (0, 3)), (other, wrong)])
