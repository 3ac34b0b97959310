"""Intervals and tests for one method or two on one task, over seeds, or over episodes won and lost."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Interval(NamedTuple):
    """A statistic and its confidence interval; NaN where there are too few values for one."""

    estimate: float
    low: float
    high: float


class Band(NamedTuple):
    """A curve and the bounds around it, each `[K]`; NaN where there are too few values for bounds."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of `values` `[n]`, one for each seed, and Student's t interval for it.

    One value a seed, for instance its mean over episodes: episodes of one policy are not independent
    draws of the algorithm. With `n < 2` the bounds are NaN, with `n = 0` the mean too.
    """
    values = np.asarray(values, np.float64).ravel()
    if values.size < 2:
        return Interval(float(values[0]) if values.size else np.nan, np.nan, np.nan)
    mean = float(values.mean())
    half = float(stats.t.ppf((1 + level) / 2, values.size - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of `a` `[n]` less that of `b` `[m]`, one value a seed, and Welch's t interval for it.

    The two need not spread alike (Welch 1947). With `n < 2` or `m < 2` the bounds are NaN.
    """
    a, b = (np.asarray(values, np.float64).ravel() for values in (a, b))
    mean = float(a.mean() - b.mean())
    if min(a.size, b.size) < 2:
        return Interval(mean, np.nan, np.nan)
    variances = np.array([a.var(ddof=1) / a.size, b.var(ddof=1) / b.size])
    total = float(variances.sum())
    if total == 0:
        return Interval(mean, mean, mean)
    freedom = total**2 / float((variances**2 / [a.size - 1, b.size - 1]).sum())
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * total**0.5
    return Interval(mean, mean - half, mean + half)


def welch(a: ArrayLike, b: ArrayLike) -> float:
    """The p-value of Welch's two-sided t test that `a` `[n]` and `b` `[m]`, a value a seed, have one mean.

    It is below `1 - level` just where the interval of `difference` leaves 0 out; NaN with `n < 2` or `m < 2`.
    """
    a, b = (np.asarray(values, np.float64).ravel() for values in (a, b))
    if min(a.size, b.size) < 2:
        return np.nan
    if a.var() + b.var() == 0:
        return float(a.mean() == b.mean())
    found: Any = stats.ttest_ind(a, b, equal_var=False)
    return float(found.pvalue)


def success_interval(success: ArrayLike, *, level: float = 0.95) -> Interval:
    """The share of successes in percent over all episodes, and Clopper and Pearson's exact interval.

    `success` `[seeds, episodes]` of 0 and 1. Right for the policies that were played, whatever the share;
    it knows nothing of other training seeds.
    """
    played = np.asarray(success, bool).ravel()
    share = 100.0 * played.mean()
    exact = stats.binomtest(int(played.sum()), played.size).proportion_ci(level, method="exact")
    return Interval(float(share), 100.0 * exact.low, 100.0 * exact.high)


def barnard(a: ArrayLike, b: ArrayLike) -> float:
    """The p-value of Barnard's exact two-sided test that `a` and `b` succeed equally often.

    Each of any shape, 0 or 1 an episode; Wald's statistic with pooled variance (Barnard 1947). Like
    `success_interval` it speaks of the policies that were played, not of other training seeds.
    """
    a, b = (np.asarray(success, bool).ravel() for success in (a, b))
    wins = np.array([a.sum(), b.sum()])
    table = np.stack([wins, [a.size, b.size] - wins])
    return min(1.0, float(stats.barnard_exact(table).pvalue))
