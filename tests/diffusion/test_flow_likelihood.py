"""Likelihood by the probability flow and by cascades, against autoregressions, mixtures and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jdp.diffusion import cascade, exact, haar
from jdp.diffusion.likelihood import (
    bits_per_dimension,
    gaussian_bits,
    log_density,
    rising,
    value_and_trace,
)
from jdp.diffusion.samplers import heun
from jdp.diffusion.schedules import karras
from jdp.types import bind

RHO, T = 0.9, 8
AR1 = RHO ** np.abs(np.subtract.outer(np.arange(T), np.arange(T)))  # x' = rho x + sqrt(1 - rho^2) eps
X = np.random.default_rng(0).multivariate_normal(np.zeros(T), AR1, 64).astype(np.float32)[..., None]
SIGMAS = rising(32, sigma_max=2000.0)
density = jax.jit(log_density, static_argnames=("probes", "sigma_data"))


def test_of_an_autoregression_it_is_that_of_the_closed_form():
    found = density(exact.correlated_gaussian(jnp.zeros(T), AR1), jnp.asarray(X), SIGMAS)
    wanted = stats.multivariate_normal(np.zeros(T), AR1).logpdf(X[..., 0])
    np.testing.assert_allclose(found, wanted, atol=0.01)  # of 8 numbers together
    closed = np.log2(2 * np.pi * np.e) / 2 + (T - 1) / (2 * T) * np.log2(1 - RHO**2)
    np.testing.assert_allclose(gaussian_bits(jnp.asarray(AR1)), closed, atol=1e-5)
    # The entropy is the mean of the bits: within the error of 64 draws, whose std is that of chi^2 / 2.
    bits = np.asarray(bits_per_dimension(found, T))
    assert abs(bits.mean() - closed) < 4 * np.sqrt(T / 2) / (T * np.log(2)) / np.sqrt(len(X))


def test_of_a_mixture_it_is_that_of_the_closed_form():
    weights, means, stds = np.array([0.3, 0.7]), np.array([[-2.0], [1.0]]), np.array([0.3, 0.5])
    x = np.linspace(-3.0, 3.0, 64, dtype=np.float32)[:, None]
    found = density(exact.mixture(weights, means, stds), jnp.asarray(x), rising(64))
    wanted = np.log(sum(w * stats.norm(m[0], s).pdf(x[:, 0]) for w, m, s in zip(weights, means, stds)))  # noqa: B905
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_data_of_the_spread_that_is_expected_cost_nothing():
    """One step is enough, but for rounding: in these coordinates their flow stands still."""
    x = jnp.asarray(X)
    found = density(exact.gaussian(0.0, 1.0), x, rising(1))
    np.testing.assert_allclose(found, stats.norm.logpdf(X[..., 0]).sum(1), atol=1e-3)


def test_random_signs_estimate_the_trace_without_bias():
    matrix = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    x = jnp.ones((1, 3))
    value, trace = value_and_trace(lambda x: x @ matrix.T, x, None)
    np.testing.assert_allclose(value, x @ matrix.T)
    np.testing.assert_allclose(trace, np.trace(matrix), rtol=1e-6)
    every = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), -1).reshape(8, 1, 3).astype(np.float32)
    _, mean = value_and_trace(lambda x: x @ matrix.T, x, jnp.asarray(every))  # over all signs there are
    np.testing.assert_allclose(mean, np.trace(matrix), rtol=1e-5)
    found = density(exact.gaussian(0.0, 0.5), x, SIGMAS, key=jax.random.key(0))
    np.testing.assert_allclose(found, stats.norm(0, 0.5).logpdf(np.ones(3)).sum(), atol=1e-2)


def _detail(slope, rest, x, sigma, known):
    mean = known.reshape(known.shape[0], -1) @ slope.T
    return mean.reshape(x.shape) + rest(x - mean.reshape(x.shape), sigma)


def exact_cascade(levels):
    """Of the autoregression: each scale is Gaussian about a mean that is linear in what is known."""
    parts = haar.analysis(jnp.eye(T)[..., None], levels)
    rows = [np.asarray(part[..., 0], np.float64).T for part in (parts.coarse, *parts.details)]
    coarse = rows[0]
    denoisers, stds = [], [np.sqrt(np.mean(np.diag(coarse @ AR1 @ coarse.T)))]
    for i, own in enumerate(rows[1:]):
        depth = levels - i
        blocks = np.kron(
            np.eye(T // 2**depth), np.full(2**depth, 2.0**-depth)
        )  # block means of the trajectory
        slope = own @ AR1 @ blocks.T @ np.linalg.inv(blocks @ AR1 @ blocks.T)
        rest = own @ AR1 @ own.T - slope @ blocks @ AR1 @ own.T
        std = np.sqrt(np.mean(np.diag(own @ AR1 @ own.T)))
        stds.append(std)
        denoiser = exact.correlated_gaussian(jnp.zeros(len(own)), rest / std**2)
        denoisers.append(bind(_detail, jnp.asarray(slope / std, jnp.float32), denoiser))
    first = exact.correlated_gaussian(jnp.zeros(len(coarse)), coarse @ AR1 @ coarse.T / stds[0] ** 2)
    return cascade.Cascade(first, tuple(denoisers), jnp.asarray(stds, jnp.float32)[:, None])


def test_the_scales_of_a_cascade_add_up_to_the_likelihood():
    found = jax.jit(cascade.log_densities)(exact_cascade(2), jnp.asarray(X), SIGMAS)
    wanted = stats.multivariate_normal(np.zeros(T), AR1).logpdf(X[..., 0])
    np.testing.assert_allclose(found.sum(0), wanted, atol=0.01)
    means = X[..., 0].reshape(64, 2, 4).sum(2) / 2  # the coarse scale's own share
    block = np.kron(np.eye(2), np.full(4, 0.5))
    np.testing.assert_allclose(
        found[0], stats.multivariate_normal(np.zeros(2), block @ AR1 @ block.T).logpdf(means), atol=0.01
    )


def test_a_cascade_draws_what_it_knows_the_density_of():
    draw = jax.jit(cascade.sample, static_argnums=(2, 4))
    x = np.asarray(draw(jax.random.key(1), exact_cascade(2), heun, karras(48), (8192, T, 1)))[..., 0]
    np.testing.assert_allclose(np.cov(x.T), AR1, atol=0.06)
