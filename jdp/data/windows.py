"""Windows of consecutive steps: index arrays into the rows, not copies.

An episode that ended in a terminal gets one absorbing pad row after its last row, and the indices of a
window are clamped to it. So a window may run past a terminal, and the terminal stands at every
position of a window, equally often where the episode is at least as long as the window.
"""

from typing import NamedTuple

import numpy as np

from jdp.data.episodes import Episodes
from jdp.errors import UserError


class Rows(NamedTuple):
    """The rows of a dataset with a pad row after every terminal; `M = N + terminal episodes`."""

    observation: np.ndarray  # [M, O] float32; on a pad, what followed the terminal
    action: np.ndarray  # [M, A] float32; 0 on a pad
    reward: np.ndarray  # [M] float32; 0 on a pad
    terminal: np.ndarray  # [M] float32, 1 on a terminal row and on its pad
    pad: np.ndarray  # [M] bool


class Windows(NamedTuple):
    """Windows over `Rows`: position `t` of window `w` is row `min(starts[w] + t, last[w])`."""

    starts: np.ndarray  # [W] int32
    last: np.ndarray  # [W] int32, the pad of a terminal episode, else the episode's last row


def left_out(episodes: Episodes, length: int) -> int:
    """How many rows are in no window of `length` steps: those of short episodes that a limit cut."""
    short = ~episodes.terminated & (episodes.lengths < length)
    return int(episodes.lengths[short].sum())


def left_out_notice(episodes: Episodes, length: int) -> str:
    """What a user should know of rows that are in no window of `length` steps; "" where all are."""
    rows, count = left_out(episodes, length), len(episodes)
    if not rows:
        return ""
    short = ~episodes.terminated & (episodes.lengths < length)
    shortest = int(episodes.lengths[short].min())
    return (
        f"{rows:,} of {count:,} rows ({rows / count:.1%}) are in no window of {length} steps: "
        f"{int(short.sum()):,} episodes are shorter, and no terminal ended them; "
        f"a horizon of {shortest} takes all"
    )


def padded_rows(episodes: Episodes) -> Rows:
    """The rows of `episodes` in time order, with the pad rows that `windows` points at."""
    at = episodes.stops[episodes.terminated]
    last = at - 1

    def insert(rows: np.ndarray, pads: np.ndarray | float) -> np.ndarray:
        return np.insert(rows, at, pads, axis=0)

    return Rows(
        observation=insert(episodes.observations, episodes.next_observations[last]),
        action=insert(episodes.actions, 0.0),
        reward=insert(episodes.rewards, 0.0),
        terminal=insert(episodes.terminals.astype(np.float32), 1.0),
        pad=insert(np.zeros(len(episodes), bool), True),
    )


def windows(episodes: Episodes, length: int, *, stride: int = 1) -> Windows:
    """All windows of `length` steps that start at every `stride`-th row of an episode.

    A window never crosses an episode. It starts where it fits into the episode's own rows, or, in
    an episode that ended in a terminal, at any row. The indices are those of `padded_rows`.

    Raises:
        UserError: if `length` or `stride` is below 1, or no episode is that long.
    """
    if length < 1 or stride < 1:
        raise UserError(f"a window needs length >= 1 and stride >= 1, not length {length}, stride {stride}")
    lengths, terminated = episodes.lengths, episodes.terminated
    usable = np.where(terminated, lengths, np.maximum(lengths - length + 1, 0))
    counts = -(-usable // stride)
    if not counts.sum() or length > lengths.max():
        raise UserError(
            f"{episodes.origin.name}: the longest of the {len(lengths)} episodes has {lengths.max()} "
            f"steps, shorter than the horizon {length}: choose a horizon <= {lengths.max()}"
        )
    pads_before = np.cumsum(terminated) - terminated
    first = episodes.starts + pads_before
    last = first + lengths - 1 + terminated
    window = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Windows(
        starts=(np.repeat(first, counts) + stride * window).astype(np.int32),
        last=np.repeat(last, counts).astype(np.int32),
    )
