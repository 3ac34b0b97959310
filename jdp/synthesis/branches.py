"""Where rollouts of a world model begin: histories of the dataset, and what it did next."""

import numpy as np

from jdp.data import Episodes
from jdp.errors import UserError


def branches(
    rng: np.random.Generator, episodes: Episodes, history: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Histories that end at rows of the dataset drawn uniformly: where rollouts begin."""
    return histories_at(episodes, rng.integers(len(episodes), size=shape), history)


def histories_at(episodes: Episodes, rows: np.ndarray, history: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[..., H, O]` up to `rows` `[...]`, and the actions between them `[..., H - 1, A]`.

    A history does not cross the beginning of an episode: its first observation is repeated there, with
    actions 0.
    """
    first = episodes.starts[np.searchsorted(episodes.stops, rows, side="right")]
    index = rows[..., None] + np.arange(-history + 1, 1)
    inside = index >= first[..., None]
    index = np.maximum(index, first[..., None])
    actions = np.where(inside[..., None], episodes.actions[index], np.float32(0))
    return episodes.observations[index], actions[..., :-1, :]


def recorded(
    rng: np.random.Generator, episodes: Episodes, history: int, length: int, shape: tuple[int, ...]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Histories as those of `branches`, and the actions `[*shape, length, A]` that the dataset took next.

    From rows that have `length` steps before them, or the end of their task: after it the last action is
    repeated, for a model that does not end there.
    """
    lengths = episodes.stops - episodes.starts
    stop = np.repeat(episodes.stops, lengths)
    room = np.arange(len(episodes)) + length <= stop
    rows = np.flatnonzero(room | np.repeat(episodes.terminated, lengths))
    if not len(rows):
        raise UserError(
            f"{episodes.origin.name}: no episode has {length} steps or a terminal: choose a shorter --horizon"
        )
    rows = rows[rng.integers(len(rows), size=shape)]
    index = np.minimum(rows[..., None] + np.arange(length), stop[rows][..., None] - 1)
    return histories_at(episodes, rows, history), episodes.actions[index]
