"""Draws: how a dataset becomes batches (`jdp.types.Draw`), on the devices or from files.

A method names its draws; `batches` and `Stream` (`jdp.data.stream`) make batches of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import segments
from jdp.data.episodes import Episodes, transitions
from jdp.data.normalise import fit_normaliser, training_rows
from jdp.data.segments import Hindsight, Located, SegmentRows, segment_rows
from jdp.data.windows import windows
from jdp.types import AnyArray, Bound, Draw, PyTree, Segments, Transition, named_keys, pack, unpack


def step_keys(key: Array, step: Array) -> dict[str, Array]:
    """The keys of one update, "draw" and "update".

    They depend on its number alone: chunks and interruptions change nothing.
    """
    return named_keys(jax.random.fold_in(key, step), "draw", "update")


def _draw(key: Array, rows: PyTree, *, draw: Draw, batch_size: int) -> PyTree:
    return draw.take(rows, draw.locate(key, draw.tables(rows), batch_size))


def _draw_all(key: Array, rows: PyTree, *, draw: Bound, seeds: int, axes: PyTree) -> PyTree:
    return jax.vmap(draw, in_axes=(0, axes))(jax.random.split(key, seeds), rows)


def batches(draw: Draw, batch_size: int, seeds: int | None = None, axes: PyTree = None) -> Bound:
    """`(key, rows) -> batch`, of rows on the devices; equal arguments give equal functions.

    Args:
        seeds: batches `[S, B, ...]`, one for each seed, of a key of its own.
        axes: which leaves of the rows hold something else for each seed, as `in_axes` of `jax.vmap`.
    """
    one = Bound(_draw, (("batch_size", batch_size), ("draw", draw)))
    return one if seeds is None else Bound(_draw_all, (("axes", axes), ("draw", one), ("seeds", seeds)))


@dataclass(frozen=True)
class NamedDraws:
    """Several draws as one: rows, tables and batches are dictionaries of the same names."""

    parts: tuple[tuple[str, Draw], ...]

    def prepare(self, episodes: Episodes) -> dict[str, PyTree]:
        """The rows of each."""
        return {name: draw.prepare(episodes) for name, draw in self.parts}

    def view(self, rows: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """What `Learner.init` sees of each."""
        return {name: draw.view(rows[name]) for name, draw in self.parts}

    def tables(self, rows: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """What `locate` needs of each."""
        return {name: draw.tables(rows[name]) for name, draw in self.parts}

    def locate(self, key: Array, tables: Mapping[str, PyTree], batch_size: int) -> dict[str, PyTree]:
        """Where the rows of a batch of each lie, of a key of its own."""
        keys = named_keys(key, *(name for name, _ in self.parts))
        return {name: draw.locate(keys[name], tables[name], batch_size) for name, draw in self.parts}

    def take(self, rows: Mapping[str, PyTree], located: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """A batch of each."""
        return {name: draw.take(rows[name], located[name]) for name, draw in self.parts}


def together(draws: Draw | Mapping[str, Draw]) -> Draw:
    """What a learner names as one draw: its only draw, or `NamedDraws` in the order of the alphabet."""
    return NamedDraws(tuple(sorted(draws.items()))) if isinstance(draws, Mapping) else draws


@dataclass(frozen=True)
class OtherRows:
    """What `draw` draws of rows that are prepared in another way; subclasses say how (`prepare`)."""

    draw: Draw

    def prepare(self, episodes: Episodes) -> PyTree:
        """The rows of `draw`."""
        return self.draw.prepare(episodes)

    def view(self, rows: PyTree) -> PyTree:
        """As `draw` has it."""
        return self.draw.view(rows)

    def tables(self, rows: PyTree) -> PyTree:
        """As `draw` has it."""
        return self.draw.tables(rows)

    def locate(self, key: Array, tables: PyTree, batch_size: int) -> PyTree:
        """As `draw` has it."""
        return self.draw.locate(key, tables, batch_size)

    def take(self, rows: PyTree, located: PyTree) -> PyTree:
        """As `draw` has it."""
        return self.draw.take(rows, located)


@dataclass(frozen=True)
class NoDraw:
    """Nothing of a dataset: what learns from its own play alone, from scratch or from a given state."""

    def prepare(self, episodes: Episodes) -> tuple[()]:
        """No rows."""
        del episodes
        return ()

    def view(self, rows: PyTree) -> PyTree:
        """What learning starts from: any pytree, () from scratch."""
        return rows

    def tables(self, rows: PyTree) -> tuple[()]:
        """Nothing."""
        del rows
        return ()

    def locate(self, key: Array, tables: tuple[()], batch_size: int) -> tuple[()]:
        """Nowhere."""
        del key, batch_size
        return tables

    def take(self, rows: PyTree, located: tuple[()]) -> tuple[()]:
        """An empty batch."""
        del rows
        return located


@dataclass(frozen=True)
class TransitionDraw:
    """Single steps, uniform and with replacement; an update has `minibatches` of them one after another."""

    observation_dim: int
    action_dim: int
    minibatches: int = 1
    next_actions: bool = False  # whether a batch carries `next_action`

    def prepare(self, episodes: Episodes) -> np.ndarray:
        """`[N, P]`, packed steps (`jdp.types.pack`)."""
        rows = transitions(episodes, next_actions=self.next_actions)
        return np.asarray(pack(jax.tree.map(jnp.asarray, rows)))

    def view(self, rows: AnyArray) -> Transition:
        """All steps, fields `[N, ...]`."""
        return unpack(rows, self.observation_dim, self.action_dim)

    def tables(self, rows: AnyArray) -> AnyArray:
        """How many rows there are."""
        return np.int32(rows.shape[0])

    def locate(self, key: Array, tables: AnyArray, batch_size: int) -> Array:
        """`[minibatches * B]`, one minibatch after another."""
        return jax.random.randint(key, (self.minibatches, batch_size), 0, tables).reshape(-1)

    def take(self, rows: AnyArray, located: AnyArray) -> Transition:
        """Fields `[minibatches * B, ...]`."""
        return self.view(rows[located])


@dataclass(frozen=True)
class SegmentDraw:
    """Rows of an episode at fixed offsets from a drawn one, with goals in hindsight.

    Row `l` of a segment is `offsets[l]` steps after the drawn row (before it, where negative), clamped to
    the episode. A goal is what a row of the kind that `hindsight` draws says in the entries `goal` of its
    observation, and `distance` how many steps after the drawn row it lies.

    Raises:
        UserError: if `offsets` do not contain 0 or do not increase.
    """

    offsets: tuple[int, ...]
    goal: tuple[int, ...] = ()
    hindsight: Hindsight = Hindsight()  # noqa: RUF009 (an immutable tuple)
    discount: float = 0.99  # of the returns to go
    terminal_penalty: float = 0.0  # see `jdp.data.values_to_go`

    def __post_init__(self) -> None:
        segments.check_offsets(self.offsets)

    def prepare(self, episodes: Episodes) -> SegmentRows:
        """All rows, and where a segment may begin."""
        length = self.offsets[-1] + 1
        return segment_rows(episodes, length, discount=self.discount, terminal_penalty=self.terminal_penalty)

    def view(self, rows: SegmentRows) -> SegmentRows:
        """The rows themselves."""
        return rows

    def tables(self, rows: SegmentRows) -> segments.Tables:
        """Starts, last and first rows of the episodes, and how many rows there are."""
        return segments.tables(rows)

    def locate(self, key: Array, tables: segments.Tables, batch_size: int) -> Located:
        """Where the rows and the goals lie."""
        return segments.locate(
            key,
            tables,
            batch_size=batch_size,
            offsets=self.offsets,
            goal=self.goal,
            hindsight=self.hindsight,
        )

    def take(self, rows: SegmentRows, located: Located) -> Segments:
        """Fields `[B, L, ...]`."""
        return segments.take(rows, located, goal=self.goal)


class WindowRows(NamedTuple):
    """Normalised rows of trajectories and where windows lie in them."""

    rows: AnyArray  # [M, D], see `jdp.data.training_rows`
    starts: AnyArray  # [W] int32
    last: AnyArray  # [W] int32


@dataclass(frozen=True)
class WindowDraw:
    """Windows of `length` consecutive normalised rows: what a trajectory diffuser learns from."""

    length: int

    def prepare(self, episodes: Episodes) -> WindowRows:
        """Rows normalised by the dataset's own statistics."""
        where = windows(episodes, self.length)
        return WindowRows(training_rows(episodes, fit_normaliser(episodes))[0], where.starts, where.last)

    def view(self, rows: WindowRows) -> Array:
        """`[1, length, D]`, the first window: only its shape matters."""
        at = np.minimum(np.asarray(rows.starts)[0] + np.arange(self.length), np.asarray(rows.last)[0])
        return jnp.asarray(rows.rows[at])[None]

    def tables(self, rows: WindowRows) -> tuple[AnyArray, AnyArray]:
        """Starts and last rows."""
        return rows.starts, rows.last

    def locate(self, key: Array, tables: tuple[Array, Array], batch_size: int) -> Array:
        """`[B, length]`."""
        starts, last = tables
        window = jax.random.randint(key, (batch_size,), 0, starts.shape[0])
        return self.steps(starts[window], last[window])

    def steps(self, starts: Array, last: Array) -> Array:
        """`[B, length]`, the rows of windows from `starts` `[B]` on, `last` `[B]` repeated."""
        steps = jnp.arange(self.length, dtype=starts.dtype)[None]
        return jnp.minimum(starts[:, None] + steps, last[:, None])

    def take(self, rows: WindowRows | AnyArray, located: AnyArray) -> AnyArray:
        """`[B, length, D]`."""
        return (rows.rows if isinstance(rows, WindowRows) else rows)[located]
