"""Guidance against exact products of Gaussians and against the reference loop in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.data import Normaliser
from jdp.devices import count_compilations
from jdp.diffusion import edm, exact, samplers
from jdp.diffusion.guidance import inpaint, normalise_safely, policy_guided, reference_guided
from jdp.diffusion.schedules import karras
from jdp.networks import NetworkConfig, make
from jdp.synthesis.policy import target_log_prob, target_policy
from jdp.types import Normal, bind

T, O, A = 2, 2, 1  # noqa: E741 (one letter a dimension, as in the docstrings)
D = O + A
N = T * D
SIGMA_MAX = 80.0
heun = jax.jit(samplers.heun)


def _linear(w, mean, std, observation):
    out = observation @ w + jnp.broadcast_to(mean, (*observation.shape[:-1], *mean.shape))
    return Normal(out, jnp.broadcast_to(std, out.shape))


def linear_policy(w, mean, std):
    """`N(s w + mean, std^2)`."""
    return bind(_linear, *(jnp.asarray(a, jnp.float32) for a in (w, mean, std)))


INDEPENDENT = linear_policy(np.zeros((O, A)), [1.5], [1.0])
guided = functools.partial(policy_guided, observation_dim=O, action_dim=A)


def moments(denoiser, sigmas, sampler=heun, length=T):
    """Mean `[N]` and covariance `[N, N]` of what a sampler makes, where it is an affine map of x."""
    n = length * D
    x = np.concatenate([np.zeros((1, n)), float(sigmas[0]) * np.eye(n)]).reshape(-1, length, D)
    out = np.asarray(sampler(denoiser, jnp.asarray(x, jnp.float32), sigmas), float).reshape(n + 1, n)
    return out[0], (out[1:] - out[0]).T @ (out[1:] - out[0])


def entries(length=T):
    """Flat indices of the actions, of the shape `[T, A]`."""
    return np.arange(length * D).reshape(length, D)[:, O : O + A]


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0])
def test_moment_guidance_is_the_product_of_independent_gaussians(c):
    mean, covariance = moments(guided(exact.gaussian(0.0, 1.0), INDEPENDENT, c), karras(64))
    a = entries().ravel()
    np.testing.assert_allclose(mean[a], 1.5 * c / (1 + c), rtol=0.03)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance))[a], (1 + c) ** -0.5, rtol=0.03)
    s = np.setdiff1d(np.arange(N), a)  # states are not moved
    np.testing.assert_allclose(mean[s], 0.0, atol=1e-5)
    np.testing.assert_allclose(np.diag(covariance)[s], 1.0, rtol=0.03)


ROOT = np.random.default_rng(0).normal(size=(N, N))
COVARIANCE = 0.7 * ROOT @ ROOT.T / N + 0.3 * np.eye(N)
W, OFFSET, STD = np.array([[0.8], [-0.5]]), np.array([0.7]), np.array([0.6])


def product_moments(c, covariance):
    """Of `N(x; 0, K) prod_t N(a_t; s_t W + offset, std^2)^c`."""
    g = np.zeros((T * A, N))
    for t in range(T):
        g[t, t * D + O] = 1.0
        g[t, t * D : t * D + O] = -W[:, 0]
    precision = np.linalg.inv(covariance) + c * g.T @ g / STD**2
    truth = np.linalg.inv(precision)
    return truth @ (c * g.T @ np.full(T, OFFSET[0]) / STD[0] ** 2), truth


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0])
def test_jacobian_guidance_is_the_product_of_correlated_gaussians(c):
    denoiser = guided(
        exact.correlated_gaussian(np.zeros(N), COVARIANCE),
        linear_policy(W, OFFSET, STD),
        c,
        covariance="jacobian",
        solver_steps=T * A,
        state_gradient=True,
    )
    mean, covariance = moments(denoiser, karras(64))
    true_mean, true_covariance = product_moments(c, COVARIANCE)
    np.testing.assert_allclose(mean, true_mean, atol=0.03 * np.abs(true_mean).max())
    std, true_std = np.sqrt(np.diag(covariance)), np.sqrt(np.diag(true_covariance))
    np.testing.assert_allclose(std, true_std, rtol=0.03)
    correlation, truth = covariance / np.outer(std, std), true_covariance / np.outer(true_std, true_std)
    np.testing.assert_allclose(correlation, truth, atol=0.03)


def test_one_solver_step_is_exact_for_one_action():
    """At a point: `D + sigma^2 grad log E[pi^c | x]` in closed form, T = A = 1."""
    k = COVARIANCE[:D, :D]
    policy = linear_policy(W, OFFSET, STD)
    base = exact.correlated_gaussian(np.zeros(D), k)
    denoiser = guided(base, policy, 0.7, covariance="jacobian", solver_steps=1, state_gradient=True)
    x = np.random.default_rng(1).normal(size=(5, 1, D)) * 2
    sigma = np.array([0.05, 0.3, 1.0, 4.0, 60.0])
    found = np.asarray(denoiser(jnp.asarray(x, jnp.float32), jnp.asarray(sigma, jnp.float32)))
    g = np.array([-W[0, 0], -W[1, 0], 1.0])
    truth = np.linalg.inv(np.linalg.inv(k) + 0.7 * np.outer(g, g) / STD**2)
    mean = truth @ (0.7 * g * OFFSET[0] / STD[0] ** 2)
    for b in range(5):  # the posterior mean of the product itself
        expected = mean + truth @ np.linalg.inv(truth + sigma[b] ** 2 * np.eye(D)) @ (x[b, 0] - mean)
        np.testing.assert_allclose(found[b, 0], expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("sampler", [heun, jax.jit(samplers.dpmpp_2m)], ids=["heun", "dpmpp_2m"])
def test_the_shift_of_guidance_does_not_depend_on_the_number_of_steps(sampler):
    denoiser, a = guided(exact.gaussian(0.0, 1.0), INDEPENDENT, 1.0), entries().ravel()
    shifts = [moments(denoiser, karras(n), sampler)[0][a].mean() for n in (16, 64, 256)]
    np.testing.assert_allclose(shifts, 0.75, rtol=0.05)


def test_the_documented_bias_of_the_denoised_gradient():
    denoiser = guided(exact.gaussian(0.0, 1.0), INDEPENDENT, 1.0, at="denoised")
    mean, covariance = moments(denoiser, karras(64))
    a = entries().ravel()
    np.testing.assert_allclose(mean[a], 1.075, rtol=0.02)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance))[a], 0.609, rtol=0.02)


@pytest.mark.parametrize("at", ["moment", "denoised", "denoised_stopped"])
@pytest.mark.parametrize("covariance", ["isotropic", "jacobian"])
def test_coefficient_zero_leaves_the_denoiser(at, covariance):
    base, x = (
        exact.correlated_gaussian(np.zeros(N), COVARIANCE),
        jax.random.normal(jax.random.key(0), (9, T, D)),
    )
    sigma = jnp.exp(jnp.linspace(-5.0, 4.0, 9))
    denoiser = guided(base, linear_policy(W, OFFSET, STD), 0.0, at=at, covariance=covariance)
    np.testing.assert_array_equal(denoiser(x, sigma), base(x, sigma))


def test_two_policies_nest():
    """The prior N(0, 1) twice guided: the product of three Gaussians, the middle one known exactly."""
    once = exact.gaussian(0.75, 0.5**0.5)  # of the first product, in every channel
    second = linear_policy(np.zeros((O, A)), [-1.0], [0.5])
    inner = guided(exact.gaussian(0.0, 1.0), linear_policy(np.zeros((O, A)), [1.5], [1.0]), 1.0)
    x = jax.random.normal(jax.random.key(0), (7, T, D))
    sigma = jnp.exp(jnp.linspace(-4.0, 4.0, 7))
    a = slice(O, O + A)
    both = guided(inner, second, 1.0, covariance="jacobian", solver_steps=T)
    expected = guided(once, second, 1.0, sigma_data=0.5**0.5)
    np.testing.assert_allclose(both(x, sigma)[..., a], expected(x, sigma)[..., a], rtol=2e-3, atol=2e-4)
    mean, covariance = moments(both, karras(64))
    np.testing.assert_allclose(mean[entries().ravel()], (1.5 - 4.0) / 6, rtol=0.03)
    np.testing.assert_allclose(np.diag(covariance)[entries().ravel()], 1 / 6, rtol=0.06)


def test_inpainting_holds_what_is_known_and_nests():
    known = jax.random.normal(jax.random.key(0), (6, T, D))
    mask = jnp.zeros((6, T, D), bool).at[:, 0, :O].set(True)
    base = guided(exact.correlated_gaussian(np.zeros(N), COVARIANCE), linear_policy(W, OFFSET, STD), 1.0)
    x = SIGMA_MAX * jax.random.normal(jax.random.key(1), known.shape)
    for sampler in ("euler", "heun", "dpmpp_2m", "churned_heun"):
        run = jax.jit(samplers.SAMPLERS[sampler])
        out = np.asarray(run(inpaint(base, known, mask), x, karras(8), key=jax.random.key(2)))
        np.testing.assert_allclose(out[np.asarray(mask)], known[mask], atol=1e-6)
    # Guidance of an inpainted denoiser leaves the known entries too: their denoised value is constant.
    out = np.asarray(
        heun(guided(inpaint(exact.gaussian(0.0, 1.0), known, mask), INDEPENDENT, 1.0), x, karras(8))
    )
    np.testing.assert_allclose(out[np.asarray(mask)], known[mask], atol=1e-6)


# --- the reference's heuristic -------------------------------------------------------------------

NORMALISER = Normaliser(
    mean=np.array([0.3, -1.0, 0.2, 0.0, 0.0], np.float32),
    std=np.array([2.0, 0.5, 1.5, 1.0, 1.0], np.float32),
    observation_dim=O,
    action_dim=A,
)


def _act(params, observation):
    mean = jnp.tanh(observation @ params)
    return Normal(mean, jnp.zeros_like(mean))


ACTOR = np.array([[0.6], [-0.9]])


def reference_loop(x, sigmas, c, point, normalise, prior_std):
    """The loop of arXiv 2404.06356's public code, for a deterministic actor, Euler without churn."""
    n = len(sigmas) - 1
    for k in range(n):
        d = lambda z, s=sigmas[k]: prior_std**2 / (prior_std**2 + s**2) * z  # noqa: E731
        z = d(x) if point == "denoised" else x
        mu = np.tanh((z[..., :O] * NORMALISER.std[:O] + NORMALISER.mean[:O]) @ ACTOR)
        a = np.tanh(z[..., O : O + A] * NORMALISER.std[O] + NORMALISER.mean[O])
        g = (mu - a) * (1 - a**2) * NORMALISER.std[O]
        if normalise:
            g = g / np.maximum(np.sqrt((g**2).sum((1, 2), keepdims=True)), 1e-8)
        weight = 0.0 if k == n - 1 else c * (1 - k / n + 0.3 * np.sin(np.pi * (k + 1) / n))
        x = x.copy()
        x[..., O : O + A] += weight * g
        x = x + (sigmas[k + 1] - sigmas[k]) * (x - d(x)) / sigmas[k]
    return x


@pytest.mark.parametrize("point", ["noised", "denoised"])
@pytest.mark.parametrize("normalise", [False, True])
def test_reference_guidance_equals_the_reference_loop(point, normalise):
    sigmas = karras(16, 0.02, 1.0)  # small enough that tanh is not flat everywhere
    x = np.random.default_rng(0).normal(size=(20, T, D + 2))
    log_prob = target_log_prob(_act, jnp.asarray(ACTOR, jnp.float32)[None], NORMALISER)
    denoiser = reference_guided(
        exact.gaussian(0.0, 0.7),
        log_prob,
        0.4,
        sigmas,
        observation_dim=O,
        action_dim=A,
        point=point,
        normalise=normalise,
    )
    found = jax.jit(samplers.euler)(denoiser, jnp.asarray(x, jnp.float32), sigmas)
    expected = reference_loop(x, np.asarray(sigmas, float), 0.4, point, normalise, 0.7)
    np.testing.assert_allclose(found, expected, atol=3e-4)
    plain = jax.jit(samplers.euler)(exact.gaussian(0.0, 0.7), jnp.asarray(x, jnp.float32), sigmas)
    assert np.abs(np.asarray(found - plain)[..., O : O + A]).mean() > 0.05  # it does push


def test_normalising_zero_gives_zero():
    g = jnp.zeros((3, T, A)).at[0].set(2.0).at[1].set(1e-30)
    found = np.asarray(normalise_safely(g))
    np.testing.assert_allclose(found[0], 1 / np.sqrt(T * A), rtol=1e-6)
    assert np.isfinite(found).all() and (found[2] == 0).all()


# --- what must never happen ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def saturated():
    """A network with random weights, ten thousand trajectories, and actors at +-1."""
    net = make(NetworkConfig("mixer", features=8, blocks=1))
    params = net.init(jax.random.key(0), jnp.zeros((2, T, D + 2)), jnp.zeros(2))
    params = jax.tree.map(lambda p: p + jax.random.normal(jax.random.key(1), p.shape), params)
    levels = jnp.exp(
        jax.random.uniform(jax.random.key(2), (10_000,), minval=np.log(0.002), maxval=np.log(80))
    )
    levels = levels.at[:50].set(80.0)
    x = (1 + levels[:, None, None]) * jax.random.normal(jax.random.key(3), (10_000, T, D + 2))
    actors = 50.0 * jax.random.normal(jax.random.key(4), (1, O, A))
    return edm(net.apply, params), actors, x, levels


@pytest.mark.parametrize(
    "settings",
    [
        {"at": "moment"},
        {"at": "moment", "covariance": "jacobian", "solver_steps": 1},
        {"at": "moment", "covariance": "jacobian", "solver_steps": 3, "state_gradient": True},
        {"at": "denoised", "state_gradient": True},
        {"at": "denoised_stopped"},
    ],
    ids=str,
)
def test_no_guidance_makes_nan(saturated, settings):
    denoiser, actors, x, levels = saturated
    policy = target_policy(_act, actors, NORMALISER, 0.1)
    made = jax.jit(lambda d, x, s: d(x, s))(guided(denoiser, policy, 2.0, **settings), x, levels)
    made = np.asarray(made)
    assert np.isfinite(made).all()
    # Nor is any pull larger than that of C = 0: sigma^2 J^T (c e / std^2).
    assert np.abs(made).max() < 1e12


@pytest.mark.parametrize("point", ["noised", "denoised"])
def test_normalised_reference_guidance_makes_no_nan(saturated, point):
    denoiser, actors, x, _ = saturated
    sigmas = karras(16)
    log_prob = target_log_prob(_act, actors, NORMALISER)
    denoiser = reference_guided(
        denoiser, log_prob, 1.0, sigmas, observation_dim=O, action_dim=A, point=point, normalise=True
    )
    x = 80.0 * jax.random.normal(jax.random.key(5), x.shape)
    # tanh' underflows on most of these: the gradient, and so its norm, is exactly zero.
    _, a = NORMALISER.decode(x)[:2]
    assert (jnp.abs(a) == 1).all(axis=(1, 2)).mean() > 0.5
    assert np.isfinite(np.asarray(jax.jit(samplers.euler)(denoiser, x, sigmas))).all()


def test_new_weights_coefficients_and_policies_compile_nothing():
    net = make(NetworkConfig("mixer", features=8, blocks=1))
    x, sigmas, known = jnp.ones((4, T, D)), karras(4), jnp.zeros((4, T, D))
    mask = jnp.zeros((4, T, D), bool)

    def build(seed):
        params = jax.jit(net.init)(jax.random.key(seed), x, jnp.zeros(4))
        policy = linear_policy(W * seed, OFFSET, STD)
        return inpaint(guided(edm(net.apply, params), policy, float(seed)), known + seed, mask)

    run = jax.jit(samplers.dpmpp_2m)
    first, other = build(1), build(2)
    run(first, x, sigmas)
    counted = count_compilations()
    results = [run(d, x, sigmas) for d in (first, other)]
    assert counted.count == 0
    assert not np.array_equal(results[0], results[1])
