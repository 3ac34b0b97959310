"""Segments of episodes as batches of planners and policies: rows at fixed offsets, goals in hindsight."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.episodes import Episodes
from jdp.data.windows import padded_rows, windows
from jdp.errors import UserError
from jdp.types import AnyArray, Segments, named_keys

FAR = 1 << 20  # steps to a goal of another episode


class SegmentRows(NamedTuple):
    """All rows of a dataset, packed, and where segments may begin; a pytree of arrays.

    As in `jdp.data.windows`, an absorbing row follows every terminal: what followed it, with action and
    reward 0 and the flag 1.
    """

    observation: AnyArray  # [M, O]
    action: AnyArray  # [M, A]
    reward: AnyArray  # [M]
    terminal: AnyArray  # [M]
    value: AnyArray  # [M], see `values_to_go`
    starts: AnyArray  # [W] int32, rows where a segment may begin
    last: AnyArray  # [W] int32, last row of the episode of each
    first: AnyArray  # [W] int32, its first row


class Hindsight(NamedTuple):
    """How goals are drawn: shares of the next row, of later rows of the episode, and of rows anywhere."""

    next: float = 0.0
    later: float = 1.0
    anywhere: float = 0.0
    reach: int = FAR  # later rows lie at most so many steps ahead


def values_to_go(episodes: Episodes, discount: float, terminal_penalty: float = 0.0) -> np.ndarray:
    """`[N]` float32: `sum_k discount^k r_(t+k)` to the end of the episode, in the units of the task.

    `terminal_penalty` is added to the reward of a terminal step (Diffuser, arXiv 2205.09991, takes -100
    on locomotion). An episode that a time limit cut is not continued: its values are lower bounds.
    """
    rewards = episodes.rewards.astype(np.float64) + terminal_penalty * episodes.terminals
    ends = episodes.terminals | episodes.timeouts
    values, following = np.empty(len(rewards)), 0.0
    for row in range(len(rewards) - 1, -1, -1):
        following = rewards[row] + (0.0 if ends[row] else discount * following)
        values[row] = following
    return values.astype(np.float32)


def segment_rows(
    episodes: Episodes, length: int, *, discount: float = 0.99, terminal_penalty: float = 0.0
) -> SegmentRows:
    """Rows from which segments that span `length` rows can be drawn.

    Raises:
        UserError: if no episode is `length` rows long.
    """
    rows, where = padded_rows(episodes), windows(episodes, length)
    value = np.zeros(len(rows.reward), np.float32)
    value[~rows.pad] = values_to_go(episodes, discount, terminal_penalty)
    value[rows.pad] = 0.0
    begin = episodes.starts + np.cumsum(episodes.terminated) - episodes.terminated  # of pads in front of it
    first = begin[np.searchsorted(begin, where.starts, side="right") - 1].astype(np.int32)
    return SegmentRows(
        rows.observation, rows.action, rows.reward, rows.terminal, value, where.starts, where.last, first
    )


def absorbing(rows: SegmentRows) -> Array:
    """`[M]` bool, the rows that stand for what follows a terminal: no state to be in, with no value."""
    last = jnp.asarray(rows.last)
    ends = jnp.zeros(rows.reward.shape[0]).at[last].max(jnp.asarray(rows.terminal)[last])
    return ends > 0


def rows_of(segments: Segments) -> SegmentRows:
    """Segments of rows `[B, L]`, each an episode of its own, as rows to draw them from again."""
    count, length = segments.reward.shape
    starts = np.arange(count, dtype=np.int32) * length
    per_row = {name: getattr(segments, name) for name in SegmentRows._fields[:5]}
    flat = {name: x.reshape((count * length, *x.shape[2:])) for name, x in per_row.items()}
    return SegmentRows(**flat, starts=starts, last=starts + length - 1, first=starts)


class Located(NamedTuple):
    """Where the rows of B segments lie."""

    at: AnyArray  # [B, L] int32
    goal: AnyArray  # [B] int32, the row that says the goal
    distance: AnyArray  # [B] int32, see `Segments`


Tables = tuple[AnyArray, AnyArray, AnyArray, AnyArray]  # starts, last, first [W]; the number of rows []


def tables(rows: SegmentRows) -> Tables:
    """What `locate` needs of the rows."""
    return rows.starts, rows.last, rows.first, np.int32(rows.reward.shape[0])


def locate(
    key: Array,
    tables: Tables,
    *,
    batch_size: int,
    offsets: tuple[int, ...],
    goal: tuple[int, ...],
    hindsight: Hindsight,
) -> Located:
    """Where a uniform draw of segments lies; the key is consumed. See `jdp.data.draws.SegmentDraw`."""
    starts, lasts, firsts, count = tables
    keys = named_keys(key, "segment", "kind", "later", "anywhere")
    index = jax.random.randint(keys["segment"], (batch_size,), 0, starts.shape[0])
    now, last = starts[index], lasts[index]
    at = now[:, None] + jnp.array(offsets, jnp.int32)[None]
    at = jnp.clip(at, firsts[index][:, None], last[:, None])
    if not goal:
        return Located(at, now, jnp.full(batch_size, FAR))
    kind = jax.random.uniform(keys["kind"], (batch_size,))
    furthest = jnp.maximum(jnp.minimum(last - now, hindsight.reach), 1)
    ahead = jax.random.randint(keys["later"], (batch_size,), 1, furthest + 1)
    ahead = jnp.where(kind < hindsight.next, 1, ahead)
    elsewhere = kind >= 1 - hindsight.anywhere
    other = jax.random.randint(keys["anywhere"], (batch_size,), 0, count)
    said = jnp.where(elsewhere, other, jnp.minimum(now + ahead, last))
    return Located(at, said, jnp.where(elsewhere, FAR, ahead))


def take(rows: SegmentRows, located: Located, *, goal: tuple[int, ...]) -> Segments:
    """The segments at `located`."""
    per_row = {name: getattr(rows, name)[located.at] for name in SegmentRows._fields[:5]}
    goals = rows.observation[located.goal][..., np.array(goal, np.int32)]
    return Segments(**per_row, goal=goals, distance=located.distance)


def check_offsets(offsets: Sequence[int]) -> None:
    """Raises `UserError` unless `offsets` contain 0 and increase."""
    if 0 not in offsets or any(b <= a for a, b in itertools.pairwise(offsets)):
        raise UserError(f"offsets of a segment contain 0 and increase, unlike {offsets}")
