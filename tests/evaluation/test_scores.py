"""Statistics against closed forms and scipy."""

import numpy as np
import pytest
from scipy import stats

from jdp.evaluation import bootstrap_interval, difference, interval, iqm, normalised_score, success_interval


def test_normalised_score():
    np.testing.assert_allclose(normalised_score([[-20.0, 3234.0, 1607.0]], (-20.0, 3234.0)), [[0, 100, 50]])


def test_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = interval(values)
    # t of .975 at 3 degrees of freedom is 3.18245; the standard error is std / 2.
    assert found.estimate == 4.0
    assert found.high - 4.0 == pytest.approx(3.18245 * values.std(ddof=1) / 2, rel=1e-5)
    assert found.high + found.low == pytest.approx(8.0)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = [interval(rng.normal(5, 2, 4), level=0.9) for _ in range(3000)]
    assert np.mean([i.low < 5 < i.high for i in draws]) == pytest.approx(0.9, abs=0.02)


def test_difference_is_welchs():
    a, b = np.array([70.0, 74.0, 81.0]), np.array([60.0, 61.0, 60.5, 64.0, 58.0])
    found, scipys = difference(a, b), stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high))
    assert difference([3.0, 3.0], [1.0, 1.0]) == (2.0, 2.0, 2.0)
    assert np.isnan(difference([3.0], b).low) and difference([3.0], [1.0]).estimate == 2.0


@pytest.mark.parametrize("function", [interval, bootstrap_interval])
def test_one_seed_has_no_interval(function):
    found = function([3.0])
    assert found.estimate == 3.0 and np.isnan(found.low) and np.isnan(found.high)


def test_iqm_drops_a_quarter_at_either_end():
    assert iqm([-1000, 1, 2, 1000]) == 1.5
    assert iqm(np.arange(16.0).reshape(4, 4)) == pytest.approx(stats.trim_mean(np.arange(16.0), 0.25))


def test_bootstrap_resamples_within_tasks():
    """Tasks that differ, runs that do not: nothing is uncertain."""
    values = np.tile([0.0, 50.0, 100.0], (5, 1))
    assert bootstrap_interval(values) == (50.0, 50.0, 50.0)
    mixed = bootstrap_interval(values.T, statistic=np.mean)
    assert mixed.low < 40 and mixed.high > 60


def test_bootstrap_of_a_mean_agrees_with_the_normal():
    values = np.random.default_rng(1).normal(0, 1, 200)
    found = bootstrap_interval(values, statistic=np.mean, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(200)
    assert found == bootstrap_interval(values, statistic=np.mean, resamples=4000)
    np.testing.assert_allclose(found, values.mean() + np.array([0, -half, half]), atol=0.01)


def test_the_interval_of_successes_is_the_exact_one():
    # Of 20 successes in 20: the lower end is (alpha / 2)^(1 / n) (Clopper and Pearson 1934).
    found = success_interval(np.ones((2, 10)))
    assert found.estimate == found.high == 100.0
    assert found.low == pytest.approx(100 * 0.025 ** (1 / 20))
    half = success_interval([[1, 0, 0, 1]])
    assert half.estimate == 50.0
    assert half.low == pytest.approx(100 - half.high)
