"""Intervals and tests for one method or two on one task, over seeds, or over episodes won and lost."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # scipy.stats has these too, and takes a second to import

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
    half = _half_width(level, values.size - 1, _standard_error(values))
    return Interval(mean, mean - half, mean + half)


def difference(a: ArrayLike, b: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of `a` `[n]` less that of `b` `[m]`, one value a seed, and Welch's t interval for it.

    The two need not spread alike (Welch 1947). With `n < 2` or `m < 2` the bounds are NaN.
    """
    a, b = (np.asarray(values, np.float64).ravel() for values in (a, b))
    mean = float(a.mean() - b.mean())
    if min(a.size, b.size) < 2:
        return Interval(mean, np.nan, np.nan)
    return _welch_interval(mean, (_standard_error(a), _standard_error(b)), (a.size, b.size), level)


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
    return _welch_interval(less, (_standard_error(a), standard_error), (a.size, runs), level)


def _welch_interval(
    mean: float, errors: tuple[float, float], sizes: tuple[int, int], level: float
) -> Interval:
    """Around a difference of two means of `sizes` values with these standard errors."""
    total, freedom = _welch(errors, sizes)
    if total == 0:
        return Interval(mean, mean, mean)
    half = _half_width(level, freedom, total)
    return Interval(mean, mean - half, mean + half)


def _welch(errors: tuple[float, float], sizes: tuple[int, int]) -> tuple[float, float]:
    """Standard error of a difference, and its degrees of freedom (Welch and Satterthwaite)."""
    variances = np.square(errors)
    total = float(variances.sum())
    if total == 0:
        return 0.0, np.inf
    return total**0.5, total**2 / float((variances**2 / (np.array(sizes) - 1)).sum())


def _standard_error(values: np.ndarray) -> float:
    """Of the mean of `values` `[n]`."""
    return float(values.std(ddof=1)) / values.size**0.5


def _half_width(level: float, freedom: float, error: float) -> float:
    """Of Student's t interval."""
    return float(special.stdtrit(freedom, (1 + level) / 2)) * error


def welch(a: ArrayLike, b: ArrayLike) -> float:
    """The p-value of Welch's two-sided t test that `a` `[n]` and `b` `[m]`, a value a seed, have one mean.

    It is below `1 - level` just where the interval of `difference` leaves 0 out; NaN with `n < 2` or `m < 2`.
    """
    a, b = (np.asarray(values, np.float64).ravel() for values in (a, b))
    if min(a.size, b.size) < 2:
        return np.nan
    error, freedom = _welch((_standard_error(a), _standard_error(b)), (a.size, b.size))
    if error == 0:
        return float(a.mean() == b.mean())
    return 2 * float(special.stdtr(freedom, -abs(a.mean() - b.mean()) / error))


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
    tail, lost = (1 - level) / 2, total - count
    low = special.betaincinv(count, lost + 1, tail) if count else 0.0
    high = special.betaincinv(count + 1, lost, 1 - tail) if lost else 1.0
    return Interval(100.0 * count / total, 100.0 * float(low), 100.0 * float(high))


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
        of_a, of_b = (_binomial(x.size, rates) for x in (a, b))
        return ((of_a @ extreme) * of_b).sum(axis=1)

    low, high = 0.0, 1.0
    for _ in range(3):  # a grid, and twice a finer one around the worst rate
        rates = np.linspace(low, high, 1001)
        worst = int(tail(rates).argmax())
        low, high = rates[max(worst - 2, 0)], rates[min(worst + 2, 1000)]
    return min(1.0, float(tail(rates).max()))


def _binomial(n: int, rates: np.ndarray) -> np.ndarray:
    """`[R, n + 1]`, how probable each number of successes of `n` is."""
    k, p = np.arange(n + 1), rates[:, None]
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.exp(ways + special.xlogy(k, p) + special.xlog1py(n - k, -p))


def _won(success: ArrayLike) -> np.ndarray:
    values = np.asarray(success, np.float64).ravel()
    if not np.isin(values, (0.0, 1.0)).all():
        raise UserError(f"an episode succeeds (1) or does not (0): {values[~np.isin(values, (0, 1))][:3]}")
    return values > 0
