"""Where episodes end: what a source marks, what its next observations say, and the task's own limit."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

PIECE = 1 << 16  # rows that are compared at once: they may lie in files
SAMPLE = 1000  # rows that are looked for elsewhere in the file
SHUFFLED = 0.05  # the share that is found there, from which on the rows count as shuffled
JUMP = 1e-4  # of a channel's spread: a next observation that is further from the next row is another's


class Ends(NamedTuple):
    """The ends that are no terminals, and what a user should know of how they were found."""

    timeouts: np.ndarray  # [N] bool
    notice: str


def find_timeouts(
    observations: np.ndarray,
    next_observations: np.ndarray | None,
    terminals: np.ndarray,
    max_episode_steps: int | None,
) -> np.ndarray:
    """`[N]` bool, the ends that are no terminals, for a source that does not mark them.

    An episode ends where `next_observations[i]` is not `observations[i + 1]`, and after
    `max_episode_steps` rows where that number is known.
    """
    ends = terminals.copy()
    ends[-1] = True
    if next_observations is not None:
        for rows in _pieces(len(ends) - 1):
            after = slice(rows.start + 1, rows.stop + 1)
            ends[rows] |= np.any(next_observations[rows] != observations[after], axis=-1)
    if max_episode_steps is not None:
        starts = np.concatenate([[0], np.flatnonzero(ends)[:-1] + 1])
        lengths = np.diff(starts, append=len(ends))
        position = np.arange(len(ends)) - np.repeat(starts, lengths)
        ends |= position % max_episode_steps == max_episode_steps - 1
    return ends & ~terminals


def find_ends(
    observations: np.ndarray,
    next_observations: np.ndarray | None,
    terminals: np.ndarray,
    timeouts: np.ndarray | None,
    max_episode_steps: int | None,
) -> Ends:
    """All ends of a source, whatever it marks.

    Marked ends stay, and where `next_observations` say that a row leads elsewhere than to the next one, an
    episode ends too. Of a source that neither marks an end nor says what came next, the task's limit tells,
    for a recorder resets the task then.
    """
    if timeouts is not None and next_observations is not None:
        jumps = _jumps(observations, next_observations, terminals | timeouts)
        return _with_jumps(jumps, observations, next_observations, timeouts)
    if next_observations is not None or (timeouts is not None and timeouts[:-1].any()):
        if timeouts is None:
            timeouts = find_timeouts(observations, next_observations, terminals, max_episode_steps)
        return Ends(timeouts, "")
    found = find_timeouts(observations, None, terminals, max_episode_steps)
    if timeouts is not None and not found[:-1].any():
        return Ends(found, "")  # nothing was cut that the source did not mark
    why = "there are no 'timeouts'" if timeouts is None else "'timeouts' mark no end"
    how = "" if max_episode_steps is None else f" and after {max_episode_steps} steps, the task's limit"
    return Ends(found, f"{why} and there are no 'next_observations': episodes end at terminals{how}")


def _pieces(count: int) -> Iterator[slice]:
    return (slice(i, min(i + PIECE, count)) for i in range(0, count, PIECE))


def _jumps(observations: np.ndarray, next_observations: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """`[N]` bool: rows that end nothing, and whose next observation is not the next row's observation."""
    spread = observations[:: max(1, len(observations) // PIECE)].std(axis=0, dtype=np.float64)
    jumps = np.zeros(len(observations), bool)
    for rows in _pieces(len(observations) - 1):
        moved = np.abs(next_observations[rows] - observations[rows.start + 1 : rows.stop + 1])
        jumps[rows] = np.any(moved > JUMP * spread, axis=-1)
    return jumps & ~ended


def _with_jumps(
    jumps: np.ndarray, observations: np.ndarray, next_observations: np.ndarray, timeouts: np.ndarray
) -> Ends:
    count, rows = int(jumps.sum()), len(jumps)
    if not count:
        return Ends(timeouts, "")
    said = f"'next_observations' of {count:,} of {rows:,} rows are not the next row"
    if 2 * count <= rows:
        return Ends(timeouts | jumps, f"{said} and no end is marked there: episodes were cut there too")
    # Rows of a shuffled file are followed by others of the file; else the column itself is another's.
    if timeouts[:-1].any() and not _elsewhere(next_observations[jumps][:SAMPLE], observations):
        return Ends(timeouts, f"{said}, nor any other: episodes are those that are marked")
    return Ends(
        timeouts | jumps,
        f"{said}: they are not in the order of time, so episodes were cut there, and returns mean nothing",
    )


def _elsewhere(some: np.ndarray, observations: np.ndarray) -> bool:
    """Whether a good share of `some` `[n, O]` stand among the `observations` `[N, O]`."""

    def keys(rows: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(rows)
        return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]

    return len(np.intersect1d(keys(some), keys(observations))) > SHUFFLED * len(some)
