"""Intervals and tests for one method or two on one task, over seeds, or over episodes won and lost."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jdp.errors import UserError


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
    return _welch_interval(mean, (stats.sem(a), stats.sem(b)), (a.size, b.size), level)


def difference_from(
    a: ArrayLike, mean: float, standard_error: float, runs: int | None, *, level: float = 0.95
) -> Interval:
    """`difference` of `a` `[n]`, one value a seed, from values known by their mean, its standard error, and
    their number: those of a table elsewhere. NaN bounds where one of these is not known, or `n < 2`.
    """
    a = np.asarray(a, np.float64).ravel()
    less = float(a.mean() - mean)
    if a.size < 2 or runs is None or runs < 2 or not np.isfinite(standard_error):
        return Interval(less, np.nan, np.nan)
    return _welch_interval(less, (stats.sem(a), standard_error), (a.size, runs), level)


def _welch_interval(
    mean: float, errors: tuple[float, float], sizes: tuple[int, int], level: float
) -> Interval:
    """Around a difference of two means of `sizes` values with these standard errors."""
    variances = np.square(errors)
    total = float(variances.sum())
    if total == 0:
        return Interval(mean, mean, mean)
    freedom = total**2 / float((variances**2 / (np.array(sizes) - 1)).sum())
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

    `success` `[seeds, episodes]` of 0 and 1, each from a start of its own. Right for the policies that were
    played, whatever the share; it knows nothing of other training seeds.

    Raises:
        UserError: for values other than 0 and 1.
    """
    played = _won(success)
    return share_interval(int(played.sum()), played.size, level=level)


def share_interval(count: int, total: int, *, level: float = 0.95) -> Interval:
    """`count` of `total` in percent, and Clopper and Pearson's exact interval; NaN of nothing."""
    if not total:
        return Interval(np.nan, np.nan, np.nan)
    exact = stats.binomtest(count, total).proportion_ci(level, method="exact")
    return Interval(100.0 * count / total, 100.0 * exact.low, 100.0 * exact.high)


def barnard(a: ArrayLike, b: ArrayLike) -> float:
    """The p-value of Barnard's exact two-sided test that `a` and `b` succeed equally often.

    Each of any shape, 0 or 1 an episode; Wald's statistic with pooled variance (Barnard 1947). Like
    `success_interval` it speaks of the policies that were played, not of other training seeds. Not that of
    scipy, which loses tables as extreme as the observed one to rounding: its p is up to 1.7 times too small.

    Raises:
        UserError: for values other than 0 and 1.
    """
    a, b = _won(a), _won(b)
    i, j = np.arange(a.size + 1)[:, None], np.arange(b.size + 1)[None]
    rate = (i + j) / (a.size + b.size)
    variance = rate * (1 - rate) * (1 / a.size + 1 / b.size)
    gap = i / a.size - j / b.size
    statistic = np.divide(gap**2, variance, out=np.zeros_like(rate), where=variance > 0)
    extreme = statistic >= statistic[a.sum(), b.sum()] * (1 - 1e-9)

    def tail(rates: np.ndarray) -> np.ndarray:
        """How probable tables so extreme are under common success rates `[R]`."""
        of_a, of_b = (stats.binom.pmf(np.arange(x.size + 1), x.size, rates[:, None]) for x in (a, b))
        return ((of_a @ extreme) * of_b).sum(axis=1)

    low, high = 0.0, 1.0
    for _ in range(3):  # a grid, and twice a finer one around the worst rate
        rates = np.linspace(low, high, 1001)
        worst = int(tail(rates).argmax())
        low, high = rates[max(worst - 2, 0)], rates[min(worst + 2, 1000)]
    return min(1.0, float(tail(rates).max()))


def _won(success: ArrayLike) -> np.ndarray:
    values = np.asarray(success, np.float64).ravel()
    if not np.isin(values, (0.0, 1.0)).all():
        raise UserError(f"an episode succeeds (1) or does not (0): {values[~np.isin(values, (0, 1))][:3]}")
    return values > 0
