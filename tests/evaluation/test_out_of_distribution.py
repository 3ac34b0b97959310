"""AUROC against all pairs and against the closed form of two Gaussians."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdp import UserError
from jdp.diffusion.likelihood import gaussian_bits
from jdp.evaluation.out_of_distribution import atypical, auroc, auroc_interval, gaussian_density


def test_it_is_the_share_of_pairs_that_are_in_order():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 6, 40), rng.integers(2, 8, 30)  # with ties
    pairs = (outside[:, None] > inside) + 0.5 * (outside[:, None] == inside)
    assert auroc(inside, outside) == pytest.approx(pairs.mean(), abs=1e-12)
    assert auroc(outside, inside) == pytest.approx(1 - pairs.mean(), abs=1e-12)
    assert auroc([1.0, 2.0], [3.0]) == 1.0
    with pytest.raises(UserError, match="one of them is empty"):
        auroc([], [1.0])


def test_of_two_gaussians_it_is_the_closed_form_and_the_interval_covers_it():
    wanted, covered = stats.norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        found = auroc_interval(rng.normal(size=100), rng.normal(1.0, size=100), resamples=100)
        covered += found.low <= wanted <= found.high
    assert 25 <= covered <= 30  # of 30 intervals of 95 %
    assert auroc(rng.normal(size=20_000), rng.normal(1.0, size=20_000)) == pytest.approx(wanted, abs=0.01)


def test_what_is_too_probable_is_atypical_too():
    reference = np.array([1.0, 3.0])
    np.testing.assert_allclose(atypical([0.5, 2.0, 3.5], reference), [1.5, 0.0, 1.5])


def test_the_likelihood_of_a_gaussian_is_exact():
    rng = np.random.default_rng(0)
    x = 1 + rng.normal(size=(500, 3, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
    found, flat = gaussian_density(x, noise=0.1), x.reshape(500, 6)
    covariance = np.cov(flat.T, bias=True) + 0.01 * np.eye(6)
    wanted = -stats.multivariate_normal(flat.mean(0), covariance).logpdf(flat) / (6 * np.log(2))
    np.testing.assert_allclose(found.bits(x), wanted, rtol=1e-10)
    draws = rng.multivariate_normal(flat.mean(0), covariance, size=20_000)
    assert found.bits(draws).mean() == pytest.approx(float(gaussian_bits(jnp.asarray(covariance))), abs=0.01)
    line = gaussian_density(np.linspace(-1, 1, 5)[:, None] * np.ones(8))  # five rows of eight entries
    assert np.isfinite(line.bits(np.ones((1, 8)))).all()
