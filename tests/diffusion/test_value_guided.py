"""Value guidance against tilted Gaussians, classifier-free guidance against its two denoisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.devices import count_compilations
from jdp.diffusion import edm, exact, samplers
from jdp.diffusion.guidance import classifier_free, classifier_free_doubled, hold, value_guided
from jdp.diffusion.schedules import karras
from jdp.networks.conditional_mlp import conditional_mlp, conditioned
from jdp.types import bind

T, D = 2, 2
N = T * D
heun = jax.jit(samplers.heun)
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(N, N))
CURVATURE = ROOT @ ROOT.T / N + 0.1 * np.eye(N)  # of N distinct eigenvalues
SLOPE = RNG.normal(size=N)


def _quadratic(curvature, slope, x, sigma):
    """`slope x - x curvature x / 2` of a clean plan, whatever `sigma`."""
    flat = x.reshape(x.shape[0], -1)
    return flat @ slope - 0.5 * jnp.sum(flat * (flat @ curvature), axis=-1)


def quadratic(curvature, slope):
    return bind(_quadratic, jnp.asarray(curvature, jnp.float32), jnp.asarray(slope, jnp.float32))


def moments(denoiser, sigmas):
    """Mean `[N]` and covariance `[N, N]` of samples, which are an affine map of the start here."""
    x = np.concatenate([np.zeros((1, N)), float(sigmas[0]) * np.eye(N)]).reshape(-1, T, D)
    out = np.asarray(heun(denoiser, jnp.asarray(x, jnp.float32), sigmas), float).reshape(N + 1, N)
    return out[0], (out[1:] - out[0]).T @ (out[1:] - out[0])


def tilted(covariance, curvature, slope, scale):
    """Of `N(x; 0, covariance) exp(scale V)`."""
    made = np.linalg.inv(np.linalg.inv(covariance) + scale * curvature)
    return scale * made @ slope, made


@pytest.mark.parametrize("std", [1.0, 0.5])
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_a_quadratic_return_tilts_independent_entries_exactly(std, scale):
    value, base = quadratic(CURVATURE, SLOPE), exact.gaussian(0.0, std)
    denoiser = value_guided(base, value, scale, solver_steps=N, sigma_data=std)
    mean, covariance = tilted(std**2 * np.eye(N), CURVATURE, SLOPE, scale)
    # The guided denoiser IS the posterior mean of the tilted Gaussian, at every level.
    sigma = np.geomspace(0.01, 80, 9)
    x = mean.reshape(T, D) + np.sqrt(1 + sigma[:, None, None] ** 2) * RNG.normal(size=(9, T, D))
    found = denoiser(jnp.asarray(x, jnp.float32), jnp.asarray(sigma, jnp.float32))
    for b in range(9):
        gain = covariance @ np.linalg.inv(covariance + sigma[b] ** 2 * np.eye(N))
        expected = mean + gain @ (x[b].ravel() - mean)
        np.testing.assert_allclose(np.ravel(found[b]), expected, atol=1e-3 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("steps", [32, 128])
def test_samples_have_the_tilted_mean_and_spread_whatever_the_number_of_steps(steps):
    value, base = quadratic(CURVATURE, SLOPE), exact.gaussian(0.0, 1.0)
    mean, covariance = moments(value_guided(base, value, 2.0, solver_steps=N), karras(steps))
    true_mean, true_covariance = tilted(np.eye(N), CURVATURE, SLOPE, 2.0)
    np.testing.assert_allclose(mean, true_mean, atol=0.02)
    np.testing.assert_allclose(np.diag(covariance) ** 0.5, np.diag(true_covariance) ** 0.5, rtol=0.05)


@pytest.mark.parametrize("solver_steps", [0, 1])
def test_a_linear_return_moves_the_mean_and_keeps_the_spread(solver_steps):
    value, base = quadratic(np.zeros((N, N)), SLOPE), exact.gaussian(0.0, 1.0)
    mean, covariance = moments(value_guided(base, value, 1.5, solver_steps=solver_steps), karras(64))
    # A start of mean 0 at level 80, where the tilted law's is 1.5 SLOPE, costs 1 / 80 of it.
    np.testing.assert_allclose(mean, 1.5 * SLOPE, rtol=0.02)
    np.testing.assert_allclose(covariance, np.eye(N), atol=0.03)


def test_one_solver_step_is_exact_for_one_curvature():
    direction = SLOPE / np.linalg.norm(SLOPE)
    value = quadratic(np.outer(direction, direction), 0.4 * direction)
    x, sigma = jax.random.normal(jax.random.key(0), (8, T, D)), jnp.geomspace(0.01, 80, 8)
    base = exact.gaussian(0.0, 1.0)
    once = value_guided(base, value, 5.0)(x, sigma)
    np.testing.assert_allclose(once, value_guided(base, value, 5.0, solver_steps=N)(x, sigma), atol=1e-4)
    # No curvature believed: five times too far past the target of the quadratic.
    blind = value_guided(base, value, 5.0, solver_steps=0)(x, sigma)
    assert np.abs(blind - once)[-1].max() > 0.5


def _bowl(x, sigma):
    return -jnp.sum(jnp.sqrt(1 + jnp.square(x - 2)), axis=(1, 2))


def test_two_newton_steps_come_nearer_to_the_maximum():
    base, x, sigma = exact.gaussian(0.0, 1.0), jnp.zeros((1, T, D)), jnp.ones(1)
    grid = np.linspace(-1, 3, 40_001)
    best = grid[np.argmax(-2 * np.sqrt(1 + (grid - 2) ** 2) - grid**2 / (2 * 0.5))]  # r^2 = 1 / 2, D = 0
    errors = [
        abs(float(value_guided(base, bind(_bowl), 2.0, steps=k)(x, sigma)[0, 0, 0]) - best) for k in (1, 2, 3)
    ]
    assert errors[0] > 3 * errors[1] and errors[2] < 1e-3


CORRELATED = np.array([[1, 0.8, 0, 0], [0.8, 1, 0, 0], [0, 0, 1, 0.8], [0, 0, 0.8, 1]])


def test_what_correlation_costs_the_isotropic_covariance():
    base = exact.correlated_gaussian(np.zeros(N), CORRELATED)
    value = quadratic(np.zeros((N, N)), np.array([1.0, 0, 0, 0]))
    mean, covariance = moments(value_guided(base, value, 1.0), karras(64))
    # Along an eigenvector of value L: sqrt(L) times the integral of s / ((1 + s^2) sqrt(L + s^2)), not L.
    a = 0.8**0.5
    even = 1.8**0.5 * np.log((1.8**0.5 + a) / (1.8**0.5 - a)) / (2 * a)
    odd = 0.2**0.5 * (np.pi / 2 - np.arctan(0.2**0.5 / a)) / a
    wrong = [(even + odd) / 2, (even - odd) / 2, 0, 0]
    np.testing.assert_allclose(wrong, [0.88, 0.33, 0, 0], atol=0.005)  # as documented
    np.testing.assert_allclose(mean, wrong, atol=0.02)
    np.testing.assert_allclose(covariance, CORRELATED, atol=0.04)


@pytest.mark.parametrize(("curvature", "scale"), [(0.0, 1.0), (1.0, 2.0)])
def test_the_jacobian_is_exact_for_correlated_gaussians(curvature, scale):
    base = exact.correlated_gaussian(np.zeros(N), CORRELATED)
    value = quadratic(curvature * CURVATURE, SLOPE)
    guided = value_guided(base, value, scale, covariance="jacobian", solver_steps=N if curvature else 1)
    mean, covariance = moments(guided, karras(64))
    true_mean, true_covariance = tilted(CORRELATED, curvature * CURVATURE, SLOPE, scale)
    np.testing.assert_allclose(mean, true_mean, atol=0.03 * np.abs(true_mean).max())
    np.testing.assert_allclose(covariance, true_covariance, atol=0.04)


def test_the_exact_noised_value_is_exact_for_correlated_gaussians():
    base = exact.correlated_gaussian(np.zeros(N), CORRELATED)
    # log E[exp(x0_0) | x] = D_0(x) + const
    mean, covariance = moments(value_guided(base, bind(_first_entry_of, base), point="noised"), karras(64))
    np.testing.assert_allclose(mean, CORRELATED[0], atol=0.02)
    np.testing.assert_allclose(covariance, CORRELATED, atol=0.04)


def _first_entry_of(denoiser, x, sigma):
    return denoiser(x, sigma).reshape(x.shape[0], -1)[:, 0]


def _log_expected(curvature, x, sigma):
    """`log E[exp(-k x0^2 / 2) | x]`, entry by entry, of the prior N(0, 1), up to a constant."""
    s2 = jnp.square(sigma)[:, None, None]
    mean, variance = x / (1 + s2), s2 / (1 + s2)
    return -0.5 * jnp.sum(curvature * jnp.square(mean) / (1 + curvature * variance), axis=(1, 2))


def test_the_exact_noised_value_tilts_exactly():
    denoiser = value_guided(exact.gaussian(0.0, 1.0), bind(_log_expected, jnp.float32(3.0)), point="noised")
    mean, covariance = moments(denoiser, karras(64))
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(np.diag(covariance), 1 / 4, rtol=0.06)


@pytest.mark.parametrize("point", ["denoised", "noised"])
def test_levels_of_single_entries(point):
    value = quadratic(CURVATURE, SLOPE)
    x = jax.random.normal(jax.random.key(0), (N, T, D))
    guided = value_guided(exact.gaussian(0.0, 1.0), value, 2.0, point=point, solver_steps=2)
    # B = T D = 4: rows of levels, of which the first step's are 0
    sigma = jnp.full((N, T), 0.7).at[:, 0].set(0.0)
    moved = np.asarray(guided(x, sigma))
    np.testing.assert_array_equal(moved[:, 0], x[:, 0])
    assert (moved[:, 1] != np.asarray(x)[:, 1]).all()
    wide = jnp.broadcast_to(sigma[..., None], x.shape)
    np.testing.assert_array_equal(guided(x, wide), moved)
    known, mask = jnp.full((N, T, D), 0.3), np.array([[[True], [False]]])
    held = hold(guided, known, mask)(x, jnp.full(N, 0.7))
    np.testing.assert_array_equal(held[:, 0], known[:, 0])
    np.testing.assert_allclose(held, guided(jnp.where(mask, known, x), sigma), atol=1e-6)


def _constant(x, sigma):
    return jnp.zeros(x.shape[0])


def _saturated(x, sigma):
    return jnp.sum(jnp.tanh(1e3 * x), axis=(1, 2))


@pytest.mark.parametrize(
    "settings",
    [
        {"point": "noised"},
        {"steps": 2, "solver_steps": 3},
        {"solver_steps": 0},
        {"covariance": "jacobian", "solver_steps": 3},
    ],
    ids=str,
)
def test_flat_values_and_no_scale_leave_the_denoiser(settings):
    base, sigma = exact.gaussian(0.0, 1.0), jnp.geomspace(1e-3, 80, 50)
    x = (1 + sigma[:, None, None]) * jax.random.normal(jax.random.key(0), (50, T, D))
    expected = base(x, sigma)
    np.testing.assert_array_equal(value_guided(base, bind(_constant), 1.0, **settings)(x, sigma), expected)
    nothing = value_guided(base, quadratic(CURVATURE, SLOPE), 0.0, **settings)(x, sigma)
    np.testing.assert_array_equal(nothing, expected)
    assert np.isfinite(value_guided(base, bind(_saturated), 10.0, **settings)(x, sigma)).all()
    rows = value_guided(base, quadratic(CURVATURE, SLOPE), jnp.zeros(50).at[3].set(1.0), **settings)
    changed = (np.asarray(rows(x, sigma)) != np.asarray(expected)).any(axis=(1, 2))
    assert changed[3] and changed.sum() == 1  # a scale for each row


# --- classifier-free guidance --------------------------------------------------------------------


def test_classifier_free_guidance_is_the_extrapolation():
    x, sigma = jax.random.normal(jax.random.key(0), (6, T, D)), jnp.geomspace(0.1, 10, 6)
    given, free = exact.gaussian(1.0, 0.5), exact.gaussian(0.0, 1.0)
    for weight, expected in [(0.0, free(x, sigma)), (1.0, given(x, sigma))]:
        np.testing.assert_allclose(classifier_free(given, free, weight)(x, sigma), expected, atol=1e-6)
    rows = jnp.arange(6.0)
    found = classifier_free(given, free, rows)(x, sigma)
    expected = free(x, sigma) + rows[:, None, None] * (given(x, sigma) - free(x, sigma))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_doubled_batch_is_the_same_guidance_and_compiles_once():
    net = conditional_mlp(16, 1)
    x, sigma = jax.random.normal(jax.random.key(0), (6, N)), jnp.geomspace(0.1, 10, 6)
    params = net.init(jax.random.key(1), x, sigma, jnp.zeros((6, 3)))
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), params)
    given, none = jax.random.normal(jax.random.key(3), (6, 3)), jnp.zeros((6, 3))
    denoiser = lambda c: edm(conditioned(net.apply), (params, c))  # noqa: E731
    run = jax.jit(lambda d, x, sigma: d(x, sigma))
    both = denoiser(jnp.concatenate([given, none]))
    expected = run(classifier_free(denoiser(given), denoiser(none), 2.5), x, sigma)
    np.testing.assert_allclose(run(classifier_free_doubled(both, 2.5), x, sigma), expected, atol=1e-5)
    counted = count_compilations()
    run(classifier_free_doubled(denoiser(jnp.concatenate([none, given])), 1.5), x, sigma)
    assert counted.count <= 2  # the concatenation above, and a scalar: not the guided network
