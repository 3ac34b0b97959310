"""Weights of a composition by their score in closed loop, chosen and reported on different episodes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jdp.errors import UserError, check_settings

Play = Callable[[tuple[float, ...], Sequence[int]], ArrayLike]  # (weights, episodes) -> a score each


class WeightSearch(NamedTuple):
    """What a search found."""

    grid: np.ndarray  # [N, K], the weights that were tried
    scores: np.ndarray  # [N], their means over the episodes of the search: the best of them is too good
    chosen: tuple[float, ...]  # [K], of the best mean
    held_out: np.ndarray  # [n], scores of the chosen weights on episodes that the search has not seen
    parents: np.ndarray  # [K, n], those of each policy alone, on the same episodes

    @property
    def gain(self) -> float:
        """Of the chosen weights over the better parent, on held-out episodes; 0 where it is that parent."""
        return float(self.held_out.mean() - self.parents.mean(1).max())


def pairs(count: int) -> np.ndarray:
    """`[count, 2]`, the convex combinations of two: weights of the second from 0 to 1 in even steps."""
    check_settings("weights of two policies", count=(count, 2, 1 << 16))
    second = np.linspace(0.0, 1.0, count)
    return np.stack([1 - second, second], axis=1)


def search_weights(
    play: Play, grid: ArrayLike, *, search: Sequence[int], held_out: Sequence[int]
) -> WeightSearch:
    """Tries all weights of `grid` on the episodes `search`, and scores the best anew on `held_out`.

    (GPC, arXiv 2510.01068, tries 0, .1, ..., 1 of two policies and reports the best of the same episodes,
    which is biased upwards.) Of equal means the first is chosen. Composition hurts where one policy is far
    worse than the other: an endpoint of the grid is then best, so a grid should have them.

    Args:
        play: `(weights [K], episodes) -> scores [n]`, in closed loop; deterministic in the episode.
        grid: `[N, K]`; `pairs(11)` is the paper's.
        search: numbers of episodes, as seeds of their resets.
        held_out: others.

    Raises:
        UserError: if an episode is in both sets, one of them is empty, or a score is not finite.
    """
    grid = np.asarray(grid, np.float64)
    both = set(search) & set(held_out)
    if both or not len(search) or not len(held_out) or grid.ndim != 2 or not len(grid):
        shared = f"{len(both)} episodes are in both" if both else "none of them may be empty"
        raise UserError(f"weights are chosen on one set of episodes and scored on another: {shared}")
    tried = [np.asarray(play(tuple(row), search), np.float64) for row in grid.tolist()]
    if not all(np.isfinite(scores).all() for scores in tried):
        raise UserError("a score of the weight search is not finite: let play return finite scores")
    means = np.array([scores.mean() for scores in tried])
    chosen = tuple(grid[int(means.argmax())].tolist())
    alone = [tuple(row) for row in np.eye(grid.shape[1]).tolist()]
    found = {weights: np.asarray(play(weights, held_out), np.float64) for weights in {chosen, *alone}}
    parents = np.stack([found[weights] for weights in alone])
    return WeightSearch(grid, means, chosen, found[chosen], parents)
