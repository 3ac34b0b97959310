"""Composed denoisers against products of Gaussians, powers and quotients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.devices import count_compilations
from jdp.diffusion import exact, formulation, samplers, score
from jdp.diffusion.guidance import compose, product, without
from jdp.diffusion.schedules import karras
from jdp.networks.conditional_mlp import conditional_mlp, conditioned

heun = jax.jit(samplers.heun)
LEVELS = jnp.geomspace(0.01, 80, 9)
X = jax.random.normal(jax.random.key(0), (9, 2)) * jnp.sqrt(1 + jnp.square(LEVELS))[:, None]


def posterior(mean, variance):
    """`E[x0 | x]` of independent Gaussians at `X`, in float64."""
    x, s2 = np.asarray(X, float), np.square(np.asarray(LEVELS, float))[:, None]
    return (variance * x + s2 * mean) / (variance + s2)


def powered(means, stds, weights):
    """Mean and variance of `prod_k N(m_k, s_k^2)^w_k`."""
    precision = np.array(weights) / np.square(stds)
    return (precision @ np.array(means)) / precision.sum(), 1 / precision.sum()


@pytest.mark.parametrize("weights", [(0.4, 0.6), (1.0, 1.0), (2.0, -0.7), (0.3, 0.1)])
def test_powers_of_gaussians_are_exact_at_every_level_where_the_stds_are_told(weights):
    means, stds = (1.0, -0.5), (0.8, 0.6)
    found = compose([exact.gaussian(m, s) for m, s in zip(means, stds, strict=True)], weights, stds)(
        X, LEVELS
    )
    np.testing.assert_allclose(found, posterior(*powered(means, stds, weights)), rtol=2e-4, atol=2e-4)


def test_of_one_variance_and_weights_that_sum_to_one_the_plain_sum_is_exact():
    own = [exact.gaussian(m, 0.7) for m in (1.0, -0.5, 0.25)]
    weights = (1.0, 1.0, -1.0)
    wanted = posterior(0.25, 0.49)
    np.testing.assert_allclose(compose(own, weights)(X, LEVELS), wanted, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(product(own[:2], own[2])(X, LEVELS), wanted, rtol=2e-4, atol=2e-4)
    away = without(own[0], own[1], own[2], 0.5)  # 1 + (.25 - -.5) / 2
    np.testing.assert_allclose(away(X, LEVELS), posterior(1.375, 0.49), rtol=2e-4, atol=2e-4)


def test_what_adding_noised_scores_costs_a_product():
    """Two experts of std .8 and .6 over a prior of std 1: their product has .547, not .487."""
    experts, prior, stds = (
        [exact.gaussian(1.0, 0.8), exact.gaussian(-0.5, 0.6)],
        exact.gaussian(0.0, 1.0),
        (0.8, 0.6, 1.0),
    )
    sigmas = karras(64)
    start = sigmas[0] * jnp.array([[0.0], [1.0]])  # the map is affine: two points tell mean and spread
    plain, told = (np.asarray(heun(product(experts, prior, s), start, sigmas))[:, 0] for s in (None, stds))
    mean, variance = powered((1.0, -0.5, 0.0), stds, (1, 1, -1))
    assert np.sqrt(variance) == pytest.approx(0.547, abs=1e-3)
    assert told[0] == pytest.approx(mean, abs=2e-3) and told[1] - told[0] == pytest.approx(0.547, rel=0.02)
    assert plain[1] - plain[0] == pytest.approx(0.487, abs=0.005) and plain[0] > 4 * mean


def test_negation_leaves_what_it_must_and_a_weight_a_row():
    prior, unwanted = exact.gaussian(0.0, 0.6), exact.gaussian(1.0, 1.0)
    wide = exact.gaussian(0.0, 1.0)
    found = without(prior, unwanted, wide, 0.5, (0.6, 1.0, 1.0))(X, LEVELS)
    np.testing.assert_allclose(found, posterior(-0.5 * 0.36, 0.36), rtol=2e-4, atol=2e-4)
    rows = without(prior, unwanted, wide, jnp.arange(9.0))(X, LEVELS)
    for row in (0, 3, 8):
        one = without(prior, unwanted, wide, float(row))(X, LEVELS)
        np.testing.assert_allclose(rows[row], one[row], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(rows[0], prior(X, LEVELS)[0])


def test_the_score_is_the_weighted_sum_of_scores_of_any_formulations():
    """And other weights compile nothing."""
    net = conditional_mlp(16, 1)
    seen = jnp.ones((9, 3))
    params = jax.jit(net.init)(jax.random.key(1), X, LEVELS, seen)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), params)
    own = [formulation(n).denoiser(conditioned(net.apply), (params, seen)) for n in ("edm", "flow", "vp_eps")]
    weights, scored = jnp.array([0.2, 0.5, 0.3]), jax.jit(score)
    found = scored(compose(own, weights), X, LEVELS)
    wanted = sum(w * scored(d, X, LEVELS) for w, d in zip(weights, own, strict=True))
    scale = 1 / np.asarray(LEVELS)[:, None] ** 2
    np.testing.assert_allclose(found / scale, wanted / scale, atol=2e-4)
    others = [compose(own, w) for w in (weights[::-1], weights**2)]
    counted = count_compilations()
    before = counted.count
    for other in others:
        scored(other, X, LEVELS)
    assert counted.count == before


def test_weights_of_one_and_nothing_change_no_bit():
    """Operation by operation: XLA may fuse two programs in two ways."""
    first = exact.mixture([0.3, 0.7], [[1.0, 0.0], [-1.0, 0.5]], [0.1, 0.3])
    found = compose([first, exact.gaussian(0.2, 0.5)], (1.0, 0.0))(X, LEVELS)
    np.testing.assert_array_equal(found, first(X, LEVELS))


def test_a_weight_is_missing():
    with pytest.raises(UserError, match=r"weights are of shape \(1,\), of 2 denoisers"):
        compose([exact.gaussian(0.0, 1.0)] * 2, (1.0,))
    with pytest.raises(UserError, match=r"stds are of shape \(3,\)"):
        product([exact.gaussian(0.0, 1.0)] * 2, stds=(1.0, 1.0, 1.0))
