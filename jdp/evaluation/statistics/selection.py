"""What tuning online would have given: the policy a bandit picks after so many evaluations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jdp.evaluation.statistics.intervals import Band


def score_by_evaluations(
    policies: Sequence[ArrayLike],
    evaluations: int,
    *,
    subset: int = 8,
    scale: float = 100.0,
    alpha: float = 2.0,
    level: float = 0.95,
    trials: int = 1000,
    seed: int = 0,
) -> Band:
    """The expected score of the policy picked after 1, 2, ... `evaluations` online episodes: `[evaluations]`.

    `policies` holds the episode scores of every policy of a method (its settings and seeds). In each of
    `trials` someone has `subset` of them at random, and plays an episode of one after the other: each once
    in random order, then by the upper confidence bound `mean + scale sqrt(alpha ln t / n)` (Auer et al. 2002)
    with `scale` the range of a score; an episode is drawn from those that were played. Picked is the policy
    with the best mean so far, what counts is its mean over all of its episodes. The estimate is the mean
    over the trials; between the bounds lie the middle `level` of single trials.

    After Jackson et al. 2025 (Unifloral, arXiv 2504.11453). Here every policy is tried once before the bound
    is used and the bound has the scale of the scores; the interval there is of the mean over trials.
    """
    rng = np.random.default_rng(seed)
    episodes = [np.asarray(scores, np.float64).ravel() for scores in policies]
    truth, subset = np.array([scores.mean() for scores in episodes]), min(subset, len(episodes))
    lengths = np.array([scores.size for scores in episodes])
    padded = np.zeros((len(episodes), lengths.max()))
    for row, scores in zip(padded, episodes, strict=True):
        row[: scores.size] = scores

    # Arms in the order in which they are tried first.
    arms = rng.permuted(np.tile(np.arange(len(episodes)), (trials, 1)), axis=1)[:, :subset]  # [trials, K]
    every = np.arange(trials)
    sums, counts = np.zeros(arms.shape), np.zeros(arms.shape)
    picked = np.empty((evaluations, trials))
    for t in range(evaluations):
        if t < subset:
            pull = np.full(trials, t)
        else:
            pull = np.argmax(sums / counts + scale * np.sqrt(alpha * np.log(t) / counts), axis=1)
        arm = arms[every, pull]
        sums[every, pull] += padded[arm, rng.integers(lengths[arm])]
        counts[every, pull] += 1
        best = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf).argmax(axis=1)
        picked[t] = truth[arms[every, best]]
    low, high = np.quantile(picked, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return Band(picked.mean(axis=1), low, high)
