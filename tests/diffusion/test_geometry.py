"""Curl, gauge and dimension of exact denoisers: closed forms of Gaussians, of a circle and of a sphere."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import edm, exact, geometry, samplers
from jdp.diffusion.schedules import karras
from jdp.networks.conservative import conservative
from jdp.types import Network, bind, expand, named_keys

TURN = jnp.array([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0] * 4])
COVARIANCE = jnp.array(
    [[2.0, 0.6, 0.0, 0.1], [0.6, 1.0, 0.3, 0.0], [0.0, 0.3, 0.5, 0.0], [0.1, 0.0, 0.0, 0.1]]
)


class Found(NamedTuple):
    """What one program says of a denoiser, so that few are compiled."""

    jacobian: jax.Array
    asymmetry: jax.Array
    estimate: jax.Array  # of the asymmetry, by probes
    spectrum: jax.Array
    dimension: jax.Array
    trace: jax.Array  # of which dimension's estimate is


@jax.jit
def look(denoiser, x, sigma):
    keys = named_keys(jax.random.key(5), "asymmetry", "trace")
    return Found(
        geometry.jacobian(denoiser, x, sigma),
        geometry.asymmetry(denoiser, x, sigma),
        geometry.asymmetry(denoiser, x, sigma, key=keys["asymmetry"], probes=64),
        geometry.spectrum(denoiser, x, sigma),
        geometry.dimension(denoiser, x, sigma),
        geometry.dimension(denoiser, x, sigma, key=keys["trace"], probes=64),
    )


def gaussian(covariance, turn=0.0):
    """The exact denoiser of `N(0, covariance)`, with a rotation of the first two entries added."""
    own = exact.correlated_gaussian(jnp.zeros(4), jnp.asarray(covariance))
    return bind(_turned, jnp.float32(turn), own)


def _turned(turn, denoiser, x, sigma):
    return denoiser(x, sigma) + turn * x @ TURN.T


COUNT = 1200  # points, of both, so that one program serves them


def circle():
    angle = np.linspace(0, 2 * np.pi, COUNT, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle), 0 * angle, 0 * angle], axis=-1)


def sphere():
    height = 1 - 2 * (np.arange(COUNT) + 0.5) / COUNT
    angle, width = np.pi * (1 + 5**0.5) * np.arange(COUNT), np.sqrt(1 - height**2)
    return np.stack([width * np.cos(angle), width * np.sin(angle), height, 0 * height], axis=-1)


def noised(points, sigma, rows=32):
    chosen = points[np.random.default_rng(0).integers(len(points), size=rows)]
    return jnp.asarray(chosen, jnp.float32) + sigma * jax.random.normal(jax.random.key(1), (rows, 4))


@jax.jit
def shrinking(denoiser, x):
    """Singular values of the flow from level 10 to .1."""
    return geometry.contraction(samplers.heun, denoiser, x, SIGMAS)


X = jax.random.normal(jax.random.key(0), (64, 4))
SIGMA = jnp.float32(0.7)
ROUND = np.eye(4, dtype=np.float32)
SIGMAS = karras(16, 0.1, 10.0)[:-1]
spectrum = jax.jit(geometry.spectrum)


def test_the_jacobian_of_a_gaussian_is_its_posterior_covariance():
    """`C (C + sigma^2)^-1`, symmetric; its trace is the dimension, its eigenvalues the spectrum."""
    found = look(gaussian(COVARIANCE), X, SIGMA)
    c = np.asarray(COVARIANCE, np.float64)
    wanted, v = c @ np.linalg.inv(c + 0.49 * np.eye(4)), np.linalg.eigvalsh(c)[::-1]
    np.testing.assert_allclose(found.jacobian, np.broadcast_to(wanted, (64, 4, 4)), atol=2e-6)
    assert float(found.asymmetry.max()) < 1e-6 and float(found.estimate.max()) < 1e-6
    np.testing.assert_allclose(found.spectrum[0], v / (v + 0.49), atol=2e-6)
    np.testing.assert_allclose(found.dimension, np.sum(v / (v + 0.49)), rtol=1e-5)


@pytest.mark.parametrize("turn", [0.1, 1.0])
def test_a_rotation_that_is_added_has_the_asymmetry_that_it_has(turn):
    """Of `N(0, I)`, whose `dD / dx` is `k I`: the two parts are `w TURN` and `k I`."""
    found = look(gaussian(ROUND, turn), X, SIGMA)
    wanted = np.sqrt(2 * turn**2 / (2 * turn**2 + 4 / 1.49**2))
    np.testing.assert_allclose(found.asymmetry, wanted, rtol=1e-5)
    np.testing.assert_allclose(found.estimate, wanted, rtol=1e-5)  # here every direction tells the same


def test_the_estimates_have_no_bias():
    """Of 64 rows with 64 signs each, beside the exact numbers; a rotation has no trace."""
    found = look(gaussian(COVARIANCE, 0.5), X, SIGMA)
    ratio = np.asarray(found.estimate / found.asymmetry)
    assert abs(ratio.mean() - 1) < 0.03 and ratio.std() > 1e-4
    np.testing.assert_allclose(np.mean(found.trace), found.dimension[0], rtol=0.02)
    np.testing.assert_allclose(found.dimension, look(gaussian(COVARIANCE), X, SIGMA).dimension, rtol=1e-5)


def test_a_rotation_of_a_round_gaussian_is_a_gauge_and_a_stretch_is_not():
    """`tr r + score . r` is 0 of `r = w TURN x`, and of `r = (k' - k) x` `(k' - k) (4 - |x|^2 / 1.49)`."""
    residual = jax.jit(geometry.gauge_residual)
    np.testing.assert_allclose(residual(gaussian(ROUND, 0.5), gaussian(ROUND), X, SIGMA), 0, atol=1e-5)
    wanted = (4 / 4.49 - 1 / 1.49) * (4 - np.sum(np.square(X), axis=1) / 1.49)
    np.testing.assert_allclose(residual(gaussian(4 * ROUND), gaussian(ROUND), X, SIGMA), wanted, atol=1e-5)
    # What is not round, the same rotation does not leave alone.
    assert np.std(residual(gaussian(COVARIANCE, 0.5), gaussian(COVARIANCE), X, SIGMA)) > 0.1


def test_a_gauge_leaves_what_is_sampled_alone():
    """Samples move by as much as they are wide, and all of them together have the same covariance."""
    start = 10 * jax.random.normal(jax.random.key(2), (4096, 4))
    sample = jax.jit(samplers.heun)
    plain, moved = (np.asarray(sample(gaussian(ROUND, turn), start, SIGMAS)) for turn in (0.0, 0.3))
    assert np.linalg.norm(plain - moved, axis=1).mean() > 1
    np.testing.assert_allclose(np.cov(moved.T), np.cov(plain.T), atol=0.06)


@pytest.mark.parametrize("points, wanted", [(circle(), 1), (sphere(), 2)], ids=["circle", "sphere"])
def test_a_circle_has_one_dimension_and_a_sphere_two(points, wanted):
    """By the trace, by the rank, and by the largest gap of the flow's singular values, in four dimensions."""
    own = exact.mixture(jnp.full(COUNT, 1 / COUNT), points, jnp.zeros(COUNT))
    values = np.asarray(spectrum(own, noised(points, 0.15), jnp.float32(0.15)))
    assert abs(values.sum(1).mean() - wanted) < 0.1
    assert ((values > 0.5).sum(1) == wanted).all()
    shrunk = np.asarray(shrinking(own, 10 * jax.random.normal(jax.random.key(3), (16, 4))))
    assert (np.asarray(geometry.largest_gap(shrunk)) == wanted).mean() > 0.9
    np.testing.assert_allclose(shrunk[:, -1], 0.1 / 10, rtol=0.05)  # across the data it shrinks as noise does


def test_the_flow_of_a_gaussian_shrinks_as_its_closed_form_says():
    v = np.linalg.eigvalsh(np.asarray(COVARIANCE, np.float64))[::-1]
    found = shrinking(gaussian(COVARIANCE), X[:2])
    np.testing.assert_allclose(found[0], np.sqrt((v + 0.01) / (v + 100)), rtol=0.03)


def _log_density(std, x, sigma):
    spread = jnp.broadcast_to(jnp.square(std), x.shape) + jnp.square(expand(sigma, x))
    return -0.5 * jnp.sum(jnp.square(x) / spread, axis=-1)


def _bent(params, x, c_noise):
    return jnp.tanh(x @ params) @ params + c_noise[:, None] * (x @ params)


def test_a_denoiser_of_a_density_is_the_exact_one():
    std = jnp.array([1.0, 0.5, 0.2, 3.0])
    own = geometry.of_density(bind(_log_density, std))
    np.testing.assert_allclose(own(X, SIGMA), exact.gaussian(0.0, std)(X, SIGMA), rtol=1e-5, atol=1e-6)


def test_a_conservative_network_is_the_symmetric_part_and_has_no_curl():
    params = jax.random.normal(jax.random.key(4), (4, 4))
    linear = conservative(Network(_bent, lambda params, x, c_noise: x @ params))
    wanted = X @ (params + params.T) / 2
    np.testing.assert_allclose(linear.apply(params, X, jnp.zeros(64)), wanted, rtol=1e-5, atol=1e-5)
    measure, plain = jax.jit(geometry.asymmetry), Network(_bent, _bent)
    assert float(measure(edm(plain.apply, params), X, SIGMA).min()) > 0.01
    assert float(measure(edm(conservative(plain).apply, params), X, SIGMA).max()) < 1e-5
