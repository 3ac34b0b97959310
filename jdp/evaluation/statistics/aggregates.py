"""Many tasks in one number: IQM and its like, with stratified bootstrap intervals (arXiv 2108.13264)."""

from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from jdp.errors import UserError
from jdp.evaluation.statistics.intervals import Band, Interval

Tasks: TypeAlias = tuple[np.ndarray, ...]
"""The runs of every task, `[..., n]` each; what stands before n are resamples."""
Scores: TypeAlias = ArrayLike | Mapping[str, ArrayLike] | Tasks
"""One score a run: `[runs, tasks]`, `[runs]` of one task, or by task `{task: [runs]}`, any number in each."""
Statistic: TypeAlias = Callable[[Tasks], np.ndarray]
"""Of the runs of every task `[..., n]` to `[...]` or `[..., K]`."""


def tasks_of(scores: Scores) -> Tasks:
    """The runs of every task as one tuple of arrays; a tuple or list of arrays stands for the tasks it holds.

    Raises:
        UserError: for arrays of more than two axes.
    """
    if isinstance(scores, tuple | list) and scores and all(isinstance(runs, np.ndarray) for runs in scores):
        return tuple(cast(Tasks, scores))
    if isinstance(scores, Mapping):
        return tuple(np.asarray(runs, np.float64).ravel() for runs in scores.values())
    values = np.asarray(scores, np.float64)
    if values.ndim > 2:
        raise UserError(f"scores of shape {values.shape}: give [runs, tasks], or the runs by task")
    return (values,) if values.ndim == 1 else tuple(values.T)


def mean(scores: Scores) -> np.ndarray:
    """The mean over tasks of each task's mean."""
    return np.mean([runs.mean(axis=-1) for runs in tasks_of(scores)], axis=0)


def median(scores: Scores) -> np.ndarray:
    """The median over tasks of each task's mean."""
    return np.median([runs.mean(axis=-1) for runs in tasks_of(scores)], axis=0)


def optimality_gap(scores: Scores, *, target: float = 100.0) -> np.ndarray:
    """By how much runs miss `target` in the mean over tasks; what is above it counts as `target`."""
    return target - mean(tuple(np.minimum(runs, target) for runs in tasks_of(scores)))


def iqm(scores: Scores) -> np.ndarray:
    """Interquartile mean over all runs of all tasks: without the lowest and the highest quarter.

    Agarwal et al. 2021, arXiv 2108.13264, section 4.3. Of N runs `floor(N / 4)` are dropped at either end.
    Where tasks have different numbers of runs, a run weighs as much as makes the tasks weigh the same.
    """
    tasks = tasks_of(scores)
    total = sum(runs.shape[-1] for runs in tasks)
    values = np.concatenate(tasks, axis=-1)
    weights = np.concatenate([np.full(runs.shape[-1], 1 / runs.shape[-1]) for runs in tasks]) / len(tasks)
    order = np.argsort(values, axis=-1)
    upto = np.cumsum(weights[order], axis=-1)
    cut = (total // 4) / total
    inside = np.clip(upto, cut, 1 - cut) - np.clip(upto - weights[order], cut, 1 - cut)
    return (inside * np.take_along_axis(values, order, axis=-1)).sum(axis=-1) / (1 - 2 * cut)


def profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """The share of runs above every threshold `[K]`, in the mean over tasks: `[..., K]`."""
    return np.mean([(runs[..., None] > thresholds).mean(axis=-2) for runs in tasks_of(scores)], axis=0)


def improvement(a: Tasks, b: Tasks) -> np.ndarray:
    """How often a run of `a` beats one of `b` on the same task, in the mean over tasks; a tie is a half."""
    signs = [np.sign(x[..., :, None] - y[..., None, :]) for x, y in zip(a, b, strict=True)]
    return 0.5 + 0.5 * np.mean([sign.mean(axis=(-2, -1)) for sign in signs], axis=0)


def bootstrap_interval(
    scores: Scores,
    *,
    statistic: Statistic = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`statistic` of `scores` and its percentile bootstrap interval.

    Stratified as in Agarwal et al. 2021 (arXiv 2108.13264, section 4.1): every task resamples its own runs,
    so the interval is about other seeds, not about other tasks. With a handful of runs it is too narrow; if a
    task has fewer than two, the bounds are NaN.
    """
    found = _bootstrap(tasks_of(scores), statistic, level, resamples, seed)
    return Interval(*(float(value) for value in found))


def performance_profile(
    scores: Scores,
    thresholds: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Band:
    """The share of runs with a score above every threshold `[K]`, with pointwise bootstrap bounds.

    The score distribution of Agarwal et al. 2021 (arXiv 2108.13264, section 4.2), bounds as of
    `bootstrap_interval`.
    """
    at = np.asarray(thresholds, np.float64)
    return _bootstrap(tasks_of(scores), lambda tasks: profile(tasks, at), level, resamples, seed)


def probability_of_improvement(
    a: Scores, b: Scores, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The probability that a run of `a` beats a run of `b` on a task drawn at random, with its interval.

    Agarwal et al. 2021, arXiv 2108.13264, section 4.3: the Mann-Whitney statistic over the runs of a task,
    in the mean over tasks. Both methods' runs are resampled.

    Raises:
        UserError: if the two are not on the same tasks.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            raise UserError(f"two methods on different tasks: {sorted(a)} and {sorted(b)}; give common ones")
        b = {task: b[task] for task in a}
    a, b = tasks_of(a), tasks_of(b)
    if len(a) != len(b):
        raise UserError(f"two methods on {len(a)} and {len(b)} tasks: give the scores on common ones")
    count = len(a)
    found = _bootstrap((*a, *b), lambda t: improvement(t[:count], t[count:]), level, resamples, seed)
    return Interval(*(float(value) for value in found))


def _bootstrap(tasks: Tasks, statistic: Statistic, level: float, resamples: int, seed: int) -> Band:
    estimate = np.asarray(statistic(tasks))
    if min(runs.size for runs in tasks) < 2:
        missing = np.full(estimate.shape, np.nan)
        return Band(estimate, missing, missing)
    rng = np.random.default_rng(seed)
    draws = tuple(runs[rng.integers(runs.size, size=(resamples, runs.size))] for runs in tasks)
    low, high = np.quantile(statistic(draws), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(estimate, low, high)
