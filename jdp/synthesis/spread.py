"""How wide the windows of a dataset spread: where sampling must begin."""

from typing import NamedTuple

import numpy as np

from jdp.data import Episodes, Experience, Normaliser, fit_normaliser, windows
from jdp.synthesis.generate import SamplerConfig

SAMPLES = 2048  # windows that are looked at
POWER_STEPS = 60  # of power iteration: the eigenvalue is then good to a percent


class Widest(NamedTuple):
    """The direction in which the windows of a dataset spread most."""

    direction: np.ndarray  # [T * D], of length 1
    std: float  # of the windows along it


def window_spread(
    episodes: Episodes, normaliser: Normaliser, length: int, *, samples: int = SAMPLES
) -> float:
    """`sqrt(lambda_1)`: the standard deviation of normalised windows `[T * D]` along their widest direction.

    Each channel has std 1, but the steps of a window move together, so the widest direction has up to
    `sqrt(T * D)`: 10.4 for windows of 32 steps of walker2d. A sampler that begins at `N(0, sigma_max^2)`
    instead of `N(0, sigma_max^2 + lambda)` loses `1 - sigma_max / sqrt(sigma_max^2 + lambda)` of it.

    Raises:
        UserError: as `jdp.data.windows`.
    """
    return widest_direction(episodes, normaliser, length, samples=samples).std


def kept_spread(made: Experience, widest: Widest, normaliser: Normaliser) -> float:
    """The std of windows `[N, T, ...]` along the `widest` direction of the data's, as a share of theirs."""
    x = normaliser.encode(made.observation, made.action, made.reward, made.terminal)
    return float(np.std(np.asarray(x, np.float32).reshape(len(x), -1) @ widest.direction)) / widest.std


def widest_direction(
    episodes: Episodes, normaliser: Normaliser, length: int, *, samples: int = SAMPLES
) -> Widest:
    """In which normalised windows spread most, of `samples` windows drawn at random.

    Raises:
        UserError: as `jdp.data.windows`.
    """
    found = windows(episodes, length)
    count = len(found.starts)
    chosen = np.random.default_rng(0).choice(count, size=min(samples, count), replace=False)
    at = np.minimum(found.starts[chosen][:, None] + np.arange(length), found.last[chosen][:, None])
    # Rows of `padded_rows` as rows of the dataset; what follows a terminal is like the terminal's own row.
    pads = episodes.stops[episodes.terminated] + np.arange(int(episodes.terminated.sum()))
    rows = at - np.searchsorted(pads, at, side="right")
    terminals = episodes.terminals[rows].astype(np.float32)
    x = normaliser.encode(
        episodes.observations[rows], episodes.actions[rows], episodes.rewards[rows], terminals
    )
    flat = np.array(x, np.float32).reshape(len(rows), -1)
    flat -= flat.mean(axis=0)
    direction = np.random.default_rng(1).normal(size=flat.shape[1]).astype(np.float32)
    for _ in range(POWER_STEPS):  # a factorisation takes seconds, this a few hundredths
        direction = flat.T @ (flat @ (direction / np.linalg.norm(direction)))
    size = np.linalg.norm(direction)
    return Widest(direction / size, float(np.sqrt(size / len(flat))))


def fit_sampler(sampler: SamplerConfig, episodes: Episodes, length: int) -> SamplerConfig:
    """`sampler` with a `sigma_max` for windows of `length` steps of `episodes`, unless it has one."""
    if sampler.sigma_max is not None:
        return sampler
    return sampler.for_windows(window_spread(episodes, fit_normaliser(episodes), length))
