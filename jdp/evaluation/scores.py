"""Normalised scores and what a few seeds say about them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Interval(NamedTuple):
    """A statistic and its confidence interval; NaN where there are too few values for one."""

    estimate: float
    low: float
    high: float


def normalised_score(returns: ArrayLike, score_range: tuple[float, float]) -> np.ndarray:
    """`100 (r - low) / (high - low)`, of the shape of `returns`: 0 is `low`, 100 is `high`.

    The convention of D4RL (arXiv 2004.07219, section 5). `score_range` belongs to the dataset's
    source: scores under another source's range are not comparable.
    """
    low, high = score_range
    return 100.0 * (np.asarray(returns, np.float64) - low) / (high - low)


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


def success_interval(success: ArrayLike, *, level: float = 0.95) -> Interval:
    """The share of successes in percent over all episodes, and Clopper and Pearson's exact interval.

    `success` `[seeds, episodes]` of 0 and 1. Right for the policies that were played, whatever the share;
    it knows nothing of other training seeds.
    """
    played = np.asarray(success, bool).ravel()
    share = 100.0 * played.mean()
    exact = stats.binomtest(int(played.sum()), played.size).proportion_ci(level, method="exact")
    return Interval(float(share), 100.0 * exact.low, 100.0 * exact.high)


def iqm(values: ArrayLike) -> float:
    """Interquartile mean of all values: the mean without the lowest and the highest quarter.

    Agarwal et al. 2021, arXiv 2108.13264, section 4.3.
    """
    return float(stats.trim_mean(np.asarray(values, np.float64).ravel(), 0.25))


def bootstrap_interval(
    values: ArrayLike,
    *,
    statistic: Callable[[np.ndarray], float] = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`statistic` of all `values` `[n]` or `[n, tasks]` and its percentile bootstrap interval.

    Stratified as in Agarwal et al. 2021 (arXiv 2108.13264, section 4.1): every task resamples its own
    n runs. With `n < 2` the bounds are NaN.
    """
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    n, tasks = values.shape
    if n < 2:
        return Interval(float(statistic(values)) if n else np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    runs = rng.integers(n, size=(resamples, n, tasks))
    draws = [statistic(np.take_along_axis(values, index, axis=0)) for index in runs]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(values)), float(low), float(high))
