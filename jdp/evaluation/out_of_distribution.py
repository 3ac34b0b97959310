"""How well a score tells what is not of the data: the area under the curve of hits against false alarms.

And a score that costs nothing: the exact likelihood of the Gaussian of the data's windows.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

from jdp.errors import UserError
from jdp.evaluation.statistics import Interval


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """The chance that one of `outside` `[m]` scores above one of `inside` `[n]`, ties for a half.

    So .5 cannot tell the two apart, and 1 always can (Mann and Whitney 1947).

    Raises:
        UserError: if one of them is empty.
    """
    inside, outside = (np.asarray(values, np.float64).ravel() for values in (inside, outside))
    if not (inside.size and outside.size):
        raise UserError("AUROC compares scores of two sets, and one of them is empty")
    ordered = np.sort(inside)
    below, not_above = (np.searchsorted(ordered, outside, side).mean() for side in ("left", "right"))
    return float((below + not_above) / 2 / inside.size)


def auroc_interval(
    inside: ArrayLike,
    outside: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """`auroc` and its percentile bootstrap interval over both sets; scores must be independent draws."""
    inside, outside = (np.asarray(values, np.float64).ravel() for values in (inside, outside))
    found, rng = auroc(inside, outside), np.random.default_rng(seed)
    draws = [
        auroc(*(values[rng.integers(values.size, size=values.size)] for values in (inside, outside)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, ((1 - level) / 2, (1 + level) / 2))
    return Interval(found, float(low), float(high))


def atypical(scores: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """`[n]`, how far `scores` `[n]` lie from the mean of those of a `reference` `[m]`, on either side.

    Of bits per dimension: what is too probable is not of the data either. A model may give smooth synthetic
    trajectories more density than real ones; their bits alone then say "inside" (typical sets, arXiv
    1906.02994, here for single samples).
    """
    return np.abs(np.asarray(scores, np.float64) - np.mean(np.asarray(reference, np.float64)))


class GaussianDensity(NamedTuple):
    """`N(mean, covariance)` of flattened rows, as their likelihood needs it."""

    mean: np.ndarray  # [N]
    root: np.ndarray  # [N, N], lower: the Cholesky factor of the covariance

    def bits(self, x: ArrayLike) -> np.ndarray:
        """`[B]`, bits per dimension of rows `[B, ...]`: `-log p(x) / (N ln 2)`, exactly.

        In the mean over draws of the Gaussian itself it is `jdp.diffusion.likelihood.gaussian_bits`.
        """
        flat = np.asarray(x, np.float64).reshape(len(np.asarray(x)), -1) - self.mean
        white = linalg.solve_triangular(self.root, flat.T, lower=True)
        size = len(self.mean)
        nats = 0.5 * np.square(white).sum(axis=0) + np.log(np.diag(self.root)).sum()
        return (nats / size + 0.5 * math.log(2 * math.pi)) / math.log(2)


def gaussian_density(x: ArrayLike, *, noise: float = 0.05) -> GaussianDensity:
    """The Gaussian of rows `[B, ...]` with `noise` added to them: of trajectories `[B, T, D]` all second
    moments, of every channel and step with every other one.

    Args:
        noise: standard deviation, in the units of `x`. Finer errors are not seen; and without it rows that
            lie in a plane, as fewer windows than entries do, have no density.
    """
    flat = np.asarray(x, np.float64).reshape(len(np.asarray(x)), -1)
    mean = flat.mean(axis=0)
    moved = flat - mean
    covariance = moved.T @ moved / len(flat) + noise**2 * np.eye(len(mean))
    return GaussianDensity(mean, np.linalg.cholesky(covariance))
