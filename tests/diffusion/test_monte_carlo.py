"""A denoiser of draws against the exact one, MPPI's weights against numpy, and the papers' recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import monte_carlo, score
from jdp.diffusion.schedules import ddpm_linear
from jdp.types import Bound

KEY, MIDDLE = jax.random.key(5), 0.4


def value(x):
    """`exp(value)` is N(MIDDLE, 1)."""
    return -0.5 * jnp.square(x[:, 0] - MIDDLE)


WEIGH = Bound(monte_carlo.weights, (("temperature", 1.0),))


@pytest.fixture(scope="module")
def found():
    """Means `[L, 64, X, 1]` of 64 keys at `abar` .9, .5 and .1, and the exact ones `[L, X, 1]`."""
    abar = jnp.array([0.9, 0.5, 0.1])
    y = jnp.linspace(-1.5, 1.5, 9)[:, None]  # in variance-preserving coordinates

    def one(key, abar, y):
        sigma = jnp.sqrt((1 - abar) / abar)
        return monte_carlo.posterior_mean(key, value, WEIGH, y / jnp.sqrt(abar), sigma, samples=512)

    keys = jax.random.split(jax.random.key(0), 64)
    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (0, None, None)), (None, 0, None))
    mean = np.asarray(jax.jit(over)(keys, abar, y), np.float64)
    a, y = np.asarray(abar, np.float64)[:, None, None], np.asarray(y, np.float64)[None]
    variance = (1 - a) / a
    exact = (y / np.sqrt(a) + variance * MIDDLE) / (1 + variance)
    return mean, exact, a, y


def test_the_score_of_draws_is_that_of_the_tilted_gaussian(found):
    """Largest errors of the mean of 64 keys; few draws lie near a narrow posterior, and abar .9 shows it."""
    mean, exact, a, y = found

    def papers_score(x0):  # of y
        return (np.sqrt(a) * x0 - y) / (1 - a)

    gap = np.abs(papers_score(mean.mean(1)) - papers_score(exact)).max((1, 2))
    assert gap[1] < 0.02 and gap[2] < 0.02 and gap[0] < 0.5
    assert gap[0] > gap[1]


def test_the_papers_step_is_the_posterior_mean(found):
    """`(y + (1 - abar) score) / sqrt(alpha) = sqrt(abar of the level before) E[x0 | y]`."""
    mean, _, a, y = found
    alpha = 0.97
    step = (y + (1 - a) * (np.sqrt(a) * mean[:, 0] - y) / (1 - a)) / np.sqrt(alpha)
    np.testing.assert_allclose(step, np.sqrt(a / alpha) * mean[:, 0], rtol=1e-9)
    x, level = ((y / np.sqrt(a)).astype(np.float32), np.sqrt((1 - a) / a).astype(np.float32))
    in_ours = score(lambda x, sigma: mean[:, 0], x, level)  # of x = y / sqrt(abar)
    np.testing.assert_allclose(in_ours, (np.sqrt(a) * mean[:, 0] - y) / (1 - a) * np.sqrt(a), rtol=1e-4)


def test_weights_are_mppis():
    values = np.array([-30.0, -31.0, -29.5, -50.0, -30.2], np.float32)

    def softmax(x):
        return np.exp(x - x.max()) / np.exp(x - x.max()).sum()

    broken = np.array([np.nan, 1.0, -np.inf, 1.0, -np.inf], np.float32)

    @jax.jit
    def weights(values, broken):
        flat = jnp.full(5, 3.0)
        return (
            jax.vmap(WEIGH)(jnp.stack([values, values - 7])),
            monte_carlo.weights(values, 2.0, elites=2),
            jax.vmap(lambda x: monte_carlo.weights(x, 0.5, relative=True))(jnp.stack([values, flat])),
            monte_carlo.weights(broken, 1.0, elites=3),
        )

    plain, best, (relative, even), finite = weights(values, broken)
    for made in plain:  # no constant counts
        np.testing.assert_allclose(made, softmax(values), rtol=1e-5)
    np.testing.assert_allclose(best[np.array([0, 2])], softmax(values[[0, 2]] / 2), rtol=1e-5)
    assert not np.asarray(best)[[1, 3, 4]].any()
    scaled = (values - values.mean()) / values.std(ddof=1)
    np.testing.assert_allclose(relative, softmax(scaled / 0.5), rtol=1e-5)
    np.testing.assert_allclose(even, 0.2)
    np.testing.assert_allclose(finite, [0, 0.5, 0, 0.5, 0])


def test_the_limits_of_the_temperature_are_the_best_draw_and_all_alike():
    values = jnp.array([0.3, -1.0, 0.9, 0.8, -4.0])

    @jax.jit
    def at(temperature):
        options = {"temperature": temperature, "elites": 3}
        return monte_carlo.weights(values, temperature), monte_carlo.weights(values, **options)

    (cold, cold_elites), (hot, hot_elites) = at(1e-6), at(1e9)
    np.testing.assert_array_equal(cold, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(cold_elites, cold)
    np.testing.assert_allclose(hot, 0.2, rtol=1e-6)
    np.testing.assert_allclose(hot_elites, [1 / 3, 0, 1 / 3, 1 / 3, 0], rtol=1e-6)  # CEM's
    between = np.asarray(at(0.7)[0], np.float64)
    np.testing.assert_allclose(between[0] / between[1], np.exp(1.3 / 0.7), rtol=1e-5)


def test_the_cross_entropy_method_multiplies_by_the_value_at_every_iteration():
    """N(x, std^2) times `exp(value)` n times has the precision `1 / std^2 + n`; elites have numpy's mean."""
    start, std = jnp.array([-1.0]), jnp.array([0.8])
    options = {"samples": 4096, "iterations": 3}

    @jax.jit
    def run(keys):
        tilted = jax.vmap(lambda key: monte_carlo.cross_entropy(key, value, WEIGH, start, std, **options))(
            keys
        )
        best = Bound(monte_carlo.weights, (("elites", 16), ("temperature", 1e9)))
        given = jnp.linspace(-2.0, 2.0, 64)[:, None]
        small = {"samples": 64, "given": given, "limit": 1.5, "iterations": 1}
        return tilted, monte_carlo.cross_entropy(KEY, value, best, start, std, **small)

    tilted, elites = run(jax.random.split(KEY, 32))
    wanted = (-1.0 / 0.64 + 3 * MIDDLE) / (1 / 0.64 + 3)
    spread = np.std(tilted) / np.sqrt(32)
    assert abs(np.mean(tilted) - wanted) < max(4 * spread, 5e-3) and spread < 5e-3
    drawn = np.clip(np.linspace(-2.0, 2.0, 64), -1.5, 1.5)
    nearest = drawn[np.argsort(np.abs(drawn - MIDDLE))[:16]]
    np.testing.assert_allclose(elites, [nearest.mean()], atol=1e-5)


def test_the_levels_are_those_of_the_authors_betas():
    sigmas = np.asarray(ddpm_linear(20, 1e-4, 1e-2), np.float64)
    abar = np.cumprod(1 - np.linspace(1e-4, 1e-2, 20))
    np.testing.assert_allclose(1 / (1 + sigmas[:-1] ** 2), abar[::-1], rtol=1e-6)
    assert sigmas[-1] == 0 and abs(sigmas[0] - 0.327) < 1e-3 and (np.diff(sigmas) < 0).all()
