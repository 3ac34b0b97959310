"""Statistics against closed forms, scipy and rliable."""

import os
from functools import partial

import numpy as np
import pytest
from scipy import stats

from jdp.errors import UserError
from jdp.evaluation.statistics import (
    barnard,
    bootstrap_interval,
    difference,
    difference_from,
    interval,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    score_by_evaluations,
    success_interval,
    welch,
)

SCORES = np.random.default_rng(3).normal([20.0, 50.0, 90.0], [10.0, 5.0, 20.0], (10, 3))  # [runs, tasks]
OTHER = np.random.default_rng(4).normal([25.0, 48.0, 99.0], [10.0, 5.0, 20.0], (7, 3))


def rliable(module: str):
    if os.environ.get("CI") == "true":
        __import__(f"rliable.{module}")
    return pytest.importorskip(f"rliable.{module}")


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
    known = difference_from(a, np.mean(b), stats.sem(b), len(b))
    np.testing.assert_allclose(known, found, rtol=1e-12)  # all that Welch's interval needs of b
    assert np.isnan(difference_from(a, 1.0, np.nan, 4).low) and np.isnan(
        difference_from(a, 1.0, 2.0, None).low
    )
    assert np.isnan(difference([3.0], b).low) and difference([3.0], [1.0]).estimate == 2.0


def test_welchs_test_and_interval_say_the_same():
    a, b = np.array([70.0, 74.0, 81.0]), np.array([60.0, 61.0, 60.5, 64.0, 58.0])
    edge = difference(a, b, level=1 - welch(a, b))  # the level at which the interval just reaches 0
    assert edge.low == pytest.approx(0.0, abs=1e-9)
    assert welch([3.0, 3.0], [1.0, 1.0]) == 0.0 and welch([3.0, 3.0], [3.0, 3.0]) == 1.0
    assert np.isnan(welch([3.0], b))


@pytest.mark.parametrize("function", [interval, bootstrap_interval])
def test_one_seed_has_no_interval(function):
    found = function([3.0])
    assert found.estimate == 3.0 and np.isnan(found.low) and np.isnan(found.high)


def test_the_interval_of_successes_is_the_exact_one():
    # Of 20 successes in 20: the lower end is (alpha / 2)^(1 / n) (Clopper and Pearson 1934).
    found = success_interval(np.ones((2, 10)))
    assert found.estimate == found.high == 100.0
    assert found.low == pytest.approx(100 * 0.025 ** (1 / 20))
    half = success_interval([[1, 0, 0, 1]])
    assert half.estimate == 50.0
    assert half.low == pytest.approx(100 - half.high)


def binomial_tail(wins: int, n: int) -> float:
    """Barnard's p-value of `wins` of n against n - wins of n in ten lines: the worst common success rate."""
    x = np.arange(n + 1)
    pooled = (x[:, None] + x) / (2 * n)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * 2 / n, 1e-300))
    wald = np.abs(x[:, None] - x) / n / spread
    extreme = wald >= wald[wins, n - wins] - 1e-9
    chances = [stats.binom.pmf(x, n, p) for p in np.linspace(0.001, 0.999, 1999)]
    return max(float((np.outer(c, c) * extreme).sum()) for c in chances)


def test_barnards_test_is_the_worst_binomial_tail():
    for wins, n in ((7, 8), (9, 12)):
        a, b = np.arange(n) < wins, np.arange(n) < n - wins
        assert barnard(a, b) == pytest.approx(binomial_tail(wins, n), abs=2e-4)
    assert barnard(a, b) == pytest.approx(barnard(b, a)) == pytest.approx(barnard(~a, ~b))
    assert barnard(np.ones(20), np.ones(5)) == barnard(np.zeros(3), np.zeros(3)) == 1.0
    assert barnard(np.ones((2, 20)), np.zeros((2, 20))) < 1e-9


@pytest.mark.parametrize(
    ("wins", "games", "least"),  # `least`: by fractions, the worst of 2001 rates
    [
        ((4, 7), (12, 9), 0.0521),
        ((10, 10), (15, 10), 0.0509),
        ((8, 1), (10, 5), 0.0412),
        ((6, 0), (6, 8), 1.2e-4),
    ],
)
def test_barnards_test_counts_tables_exactly_as_extreme(wins, games, least):
    a, b = (np.arange(n) < w for w, n in zip(wins, games, strict=True))
    found = barnard(a, b)
    assert least <= found < 1.03 * least
    table = [list(wins), [n - w for w, n in zip(wins, games, strict=True)]]
    assert found > 1.02 * stats.barnard_exact(table).pvalue  # which loses some of them to rounding


def test_what_is_no_episode_or_no_table_of_scores_is_refused():
    for wrong in ([0.0, np.nan], [0.0, 100.0]):
        for test in (success_interval, lambda x: barnard([1.0], x)):
            with pytest.raises(UserError, match="an episode succeeds"):
                test(wrong)
    with pytest.raises(UserError, match=r"\[runs, tasks\]"):
        mean(np.zeros((2, 3, 4)))
    arrays = [np.array([1.0, 2.0, 9.0]), np.array([4.0, 5.0, 6.0])]
    assert median(arrays) == median(tuple(arrays)) == 4.5  # two tasks, in a list as in a tuple


def test_barnards_test_is_exact():
    """Under one success rate it rejects at most as often as its level, and not much less often."""
    rng, n = np.random.default_rng(0), 25
    draws = rng.binomial(n, 0.4, size=(2000, 2))
    cache = {tuple(d): barnard(np.arange(n) < d[0], np.arange(n) < d[1]) for d in np.unique(draws, axis=0)}
    rejected = np.mean([cache[tuple(d)] <= 0.1 for d in draws])
    assert 0.04 < rejected < 0.1 + 0.02


def test_iqm_drops_a_quarter_at_either_end():
    assert iqm([-1000, 1, 2, 1000]) == 1.5
    assert iqm(np.arange(16.0).reshape(4, 4)) == pytest.approx(stats.trim_mean(np.arange(16.0), 0.25))


def test_tasks_weigh_the_same_whatever_their_numbers_of_runs():
    few, many = np.array([10.0, 30.0]), np.array([50.0, 70.0])
    ragged = {"a": few, "b": np.repeat(many, 5)}
    assert mean(ragged) == mean({"a": few, "b": many}) == 40.0
    # Of 12 runs a quarter of the weight is cut at either end: half of `few` goes, and half of 70s.
    assert iqm(ragged) == pytest.approx(iqm({"a": np.repeat(few, 5), "b": np.repeat(many, 5)}))
    assert optimality_gap(ragged, target=60.0) == pytest.approx((40 + 5) / 2)
    assert bootstrap_interval(ragged).estimate == pytest.approx(40.0)


def test_aggregates_are_rliables():
    metrics = rliable("metrics")
    for runs in (3, 4, 5, 10):
        scores = SCORES[:runs]
        assert iqm(scores) == pytest.approx(metrics.aggregate_iqm(scores))
        assert mean(scores) == pytest.approx(metrics.aggregate_mean(scores))
        assert median(scores) == pytest.approx(metrics.aggregate_median(scores))
        assert optimality_gap(scores, target=60.0) == pytest.approx(
            metrics.aggregate_optimality_gap(scores, gamma=60.0)
        )
    tied = np.round(OTHER, -1), np.round(SCORES, -1)
    for a, b in ((SCORES, OTHER), (OTHER, SCORES), tied):
        found = probability_of_improvement(a, b)
        assert found.estimate == pytest.approx(metrics.probability_of_improvement(a, b))
    # There what equals itself is a half by decree; here it follows.
    assert probability_of_improvement(SCORES, SCORES).estimate == 0.5


@pytest.mark.parametrize("statistic", [iqm, mean, median, partial(optimality_gap, target=60.0)])
def test_bootstrap_intervals_are_rliables(statistic):
    library = rliable("library")
    found = bootstrap_interval(SCORES, statistic=statistic, resamples=8000)
    np.random.seed(0)
    _, theirs = library.get_interval_estimates({"x": SCORES}, lambda x: np.array([statistic(x)]), reps=4000)
    np.testing.assert_allclose([found.low, found.high], theirs["x"][:, 0], atol=0.35)
    assert 4 < found.high - found.low < 13


def test_profiles_and_improvement_intervals_are_rliables():
    library, metrics = rliable("library"), rliable("metrics")
    at = np.linspace(0, 120, 13)
    np.random.seed(0)
    profiles, bounds = library.create_performance_profile({"x": SCORES}, at, reps=2000)
    found = performance_profile(SCORES, at, resamples=6000)
    np.testing.assert_allclose(found.estimate, profiles["x"])
    np.testing.assert_allclose([found.low, found.high], bounds["x"], atol=0.034)  # one run of thirty
    _, theirs = library.get_interval_estimates(
        {"xy": [SCORES, OTHER]}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=500
    )
    mine = probability_of_improvement(SCORES, OTHER, resamples=6000)
    np.testing.assert_allclose([mine.low, mine.high], theirs["xy"][:, 0], atol=0.03)


def test_profiles_in_closed_form():
    band = performance_profile({"a": [1.0, 3.0], "b": [2.0, 2.0, 5.0]}, [0.0, 2.0, 4.0, 6.0])
    np.testing.assert_allclose(band.estimate, [1, (1 / 2 + 1 / 3) / 2, (1 / 3) / 2, 0])
    assert (band.low <= band.estimate).all() and (band.estimate <= band.high).all()
    assert (band.low[[0, 3]] == band.high[[0, 3]]).all()


def test_improvement_is_by_task_and_refuses_different_ones():
    better = {"b": [2.0, 4.0], "a": [102.0, 103.0]}
    worse = {"a": [100.0, 101.0], "b": [1.0, 3.0, 3.0]}
    assert probability_of_improvement(better, worse).estimate == pytest.approx((1 + (1 / 3 + 1) / 2) / 2)
    with pytest.raises(UserError, match="different tasks"):
        probability_of_improvement(better, {"a": [1.0, 2.0]})
    with pytest.raises(UserError, match="3 and 2 tasks"):
        probability_of_improvement(SCORES, OTHER[:, :2])


def test_bootstrap_resamples_within_tasks():
    """Tasks that differ, runs that do not: nothing is uncertain."""
    values = np.tile([0.0, 50.0, 100.0], (5, 1))
    np.testing.assert_allclose(bootstrap_interval(values), 50.0, rtol=1e-12)
    mixed = bootstrap_interval(values.T, statistic=mean)
    assert mixed.low < 40 and mixed.high > 60


def test_bootstrap_of_a_mean_agrees_with_the_normal():
    values = np.random.default_rng(1).normal(0, 1, 200)
    found = bootstrap_interval(values, statistic=mean, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(200)
    assert found == bootstrap_interval(values, statistic=mean, resamples=4000)
    np.testing.assert_allclose(found, values.mean() + np.array([0, -half, half]), atol=0.01)


def test_one_evaluation_is_worth_the_mean_of_the_policies():
    policies = [np.full(3, 10.0), np.full(5, 20.0), np.full(4, 60.0), np.full(2, 30.0)]
    found = score_by_evaluations(policies, 12, subset=4, trials=4000)
    assert found.estimate[0] == pytest.approx(30.0, abs=1.0)
    # Without noise the best is known once all were played: the best of k drawn without replacement.
    expected = [30.0, (20 + 30 + 60 + 30 + 60 + 60) / 6, (30 + 3 * 60) / 4, 60.0]
    np.testing.assert_allclose(found.estimate[:4], expected, atol=1.0)
    assert (found.estimate[3:] == 60.0).all() and (found.low[3:] == 60.0).all()
    # With two at hand it stays at the best of two.
    two = score_by_evaluations(policies, 12, subset=2, trials=4000)
    np.testing.assert_allclose(two.estimate[1:], expected[1], atol=1.0)


def test_a_noisy_bandit_finds_the_best_policy_with_many_evaluations():
    rng = np.random.default_rng(0)
    policies = [rng.normal(m, 15.0, 200) for m in (20.0, 50.0, 55.0, 90.0)]
    found = score_by_evaluations(policies, 300, trials=300)
    best, worst = max(p.mean() for p in policies), min(p.mean() for p in policies)
    assert found.estimate[-1] == pytest.approx(best, abs=0.5)
    assert (np.diff(found.estimate[[0, 1, 2, 3, 20]]) > 0).all()
    assert worst == pytest.approx(found.low[0]) and best == pytest.approx(found.high[0])
    again = score_by_evaluations(policies, 300, trials=300)
    np.testing.assert_array_equal(found.estimate, again.estimate)


def test_a_lucky_episode_does_not_make_a_policy_good():
    """Picked by chance: two equal policies of one lucky episode in ten, and one that is steady and better."""
    lucky = np.array([100.0] + [0.0] * 9)
    found = score_by_evaluations([lucky, lucky, np.full(10, 60.0)], 400, trials=400)
    assert found.estimate[2] < 54  # one lucky episode in the first three misleads
    assert found.estimate[-1] == pytest.approx(60.0, abs=0.5)
