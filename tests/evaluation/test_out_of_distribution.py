"""AUROC against all pairs and against the closed form of two Gaussians."""

import numpy as np
import pytest
from scipy import stats

from jdp import UserError
from jdp.evaluation.out_of_distribution import atypical, auroc, auroc_interval


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
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = auroc_interval(rng.normal(size=100), rng.normal(1.0, size=100), resamples=200)
        covered += found.low <= wanted <= found.high
    assert 34 <= covered <= 40  # of 40 intervals of 95 %
    assert auroc(rng.normal(size=20_000), rng.normal(1.0, size=20_000)) == pytest.approx(wanted, abs=0.01)


def test_what_is_too_probable_is_atypical_too():
    reference = np.array([1.0, 3.0])
    np.testing.assert_allclose(atypical([0.5, 2.0, 3.5], reference), [1.5, 0.0, 1.5])
