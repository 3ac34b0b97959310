"""Where sampling must begin: the widest direction of windows, on exact Gaussians of a known covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import Origin, fit_normaliser, padded_rows, training_rows, windows
from jdp.data.episodes import make_episodes
from jdp.diffusion import exact, samplers
from jdp.diffusion.schedules import karras
from jdp.errors import UserError
from jdp.evaluation.synthetic_sets import real_windows
from jdp.synthesis import SamplerConfig, fit_sampler, kept_spread, widest_direction, window_spread
from jdp.types import Spec

ORIGIN = Origin("made by hand", "file", "", "", 0, "MIT")
T = 16


def slow_episodes(count=20, length=60, terminal=True, seed=0):
    """Episodes whose observations hardly change, so that the steps of a window move together."""
    rng, n = np.random.default_rng(seed), count * length
    level = np.repeat(rng.normal(size=(count, 3)), length, axis=0)
    observations = (level + 0.1 * rng.normal(size=(n, 3))).astype(np.float32)
    ends = np.arange(n) % length == length - 1
    actions = rng.uniform(-0.9, 0.9, size=(n, 2)).astype(np.float32)
    rewards = rng.normal(size=n).astype(np.float32)
    half = ends & (np.arange(n) < n // 2) if terminal else ends & False
    return make_episodes(
        observations, actions, rewards, None, half, ends & ~half, spec=Spec(3, 2), origin=ORIGIN
    )


@pytest.mark.parametrize("terminal", (False, True))
def test_the_spread_is_the_root_of_the_largest_eigenvalue_of_all_windows(terminal):
    data = slow_episodes(terminal=terminal)
    normaliser = fit_normaliser(data)
    rows, _ = training_rows(data, normaliser)
    found = windows(data, T)
    at = np.minimum(found.starts[:, None] + np.arange(T), found.last[:, None])
    inside = ~padded_rows(data).pad[at].any(axis=1)  # after a terminal, pads stand for its row
    x = rows[at[inside]].reshape(int(inside.sum()), -1)
    largest = np.linalg.eigvalsh(np.cov(x.T, bias=True))[-1]
    np.testing.assert_allclose(window_spread(data, normaliser, T), np.sqrt(largest), rtol=0.1)
    assert np.sqrt(largest) > 3  # sixteen steps move together


def test_the_spread_that_a_set_keeps():
    data = slow_episodes()
    normaliser = fit_normaliser(data)
    real, widest = real_windows(data, normaliser, 400, T), widest_direction(data, normaliser, T)
    assert abs(kept_spread(real, widest, normaliser) - 1) < 0.1
    mean = normaliser.mean[:3]
    narrow = real._replace(observation=mean + 0.5 * (real.observation - mean))
    assert abs(kept_spread(narrow, widest, normaliser) / kept_spread(real, widest, normaliser) - 0.5) < 0.02


def test_a_sampler_is_fitted_once_and_a_level_that_was_given_stays():
    data = slow_episodes()
    fitted = fit_sampler(SamplerConfig(), data, T)
    spread = window_spread(data, fit_normaliser(data), T)
    assert fitted.sigma_max == max(20.0, round(4 * spread, 1)) and fit_sampler(fitted, data, T) is fitted
    assert SamplerConfig().for_windows(10.4).sigma_max == 41.6
    assert fit_sampler(SamplerConfig(sigma_max=80.0), data, T).sigma_max == 80.0
    with pytest.raises(UserError, match="sigma_max depends on the data"):
        SamplerConfig().sigmas()


def covariance(top):
    """`[8, 8]`, one direction of std `top`, the others of std 1."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    return q @ np.diag([top**2, *[1.0] * 7]) @ q.T, q[:, 0]


@pytest.mark.parametrize("top", (3.0, 10.4))
def test_windows_keep_their_widest_direction_at_the_fitted_level_and_lose_it_at_a_lower_one(top):
    c, widest = covariance(top)
    denoiser = exact.correlated_gaussian(jnp.zeros(8), jnp.asarray(c))

    def share_kept(sigmas):
        x = sigmas[0] * jax.random.normal(jax.random.key(0), (4000, 8))
        x0 = np.asarray(jax.jit(samplers.heun)(denoiser, x, sigmas))
        return (x0 @ widest).std() / top / (np.asarray(x) @ widest).std() * float(sigmas[0])

    fitted = SamplerConfig(steps=48).for_windows(top)
    assert abs(share_kept(fitted.sigmas()) - 1) < 0.04
    low = 2 * top  # what a start of N(0, sigma^2) instead of N(0, sigma^2 + lambda) loses, in closed form
    np.testing.assert_allclose(share_kept(karras(48, 0.002, low)), low / np.sqrt(low**2 + top**2), rtol=0.01)


def test_the_printed_check_sees_what_a_low_first_level_costs():
    sampler, low = SamplerConfig().function(), SamplerConfig(sigma_max=10.0)
    seen = exact.std_errors(sampler, low.sigmas(), widest=10.4)
    assert seen["10.4"] < -0.25 and max(abs(v) for k, v in seen.items() if k != "10.4") < 0.05
    assert (
        abs(exact.std_errors(sampler, SamplerConfig().for_windows(10.4).sigmas(), widest=10.4)["10.4"]) < 0.03
    )
