"""The rows that a draw needs, in memory or in files that are written when first asked for."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdp.data.draws import SegmentDraw, TransitionDraw, WindowDraw, WindowRows
from jdp.data.episodes import Episodes
from jdp.data.mapped import map_rows, write_rows, write_windows
from jdp.data.normalise import fit_normaliser
from jdp.data.segments import SegmentRows
from jdp.data.windows import windows
from jdp.devices import distributed
from jdp.types import Draw, PyTree


@dataclass(frozen=True)
class RowFiles:
    """A folder of memory-mapped arrays, of any number of datasets."""

    folder: Path

    def rows(
        self, episodes: Episodes, what: str, names: Sequence[str], write: Callable[[Path], Any]
    ) -> dict[str, np.memmap]:
        """The arrays `names` of a dataset, which `write(folder)` writes where there are none.

        Args:
            what: what they depend on besides the dataset.
        """
        known = f"{episodes.origin.sha256} {episodes.spec} {what}"
        folder = self.folder / hashlib.sha256(known.encode()).hexdigest()[:16]
        with distributed.main_first("stream"):
            if not all((folder / f"{name}.npy").exists() for name in names):
                write(folder)
            return map_rows(folder, names)


def prepared(draws: Draw | Mapping[str, Draw], episodes: Episodes, files: RowFiles | None = None) -> PyTree:
    """`draws.prepare(episodes)`; of named draws a dictionary. With `files` the large arrays lie there.

    Raises:
        UserError: if the dataset has no such rows.
        StorageError: if files cannot be written.
    """
    if isinstance(draws, Mapping):
        return {name: prepared(draw, episodes, files) for name, draw in draws.items()}
    if files is None:
        return draws.prepare(episodes)
    if isinstance(draws, WindowDraw):
        where, normaliser = windows(episodes, draws.length), fit_normaliser(episodes)
        rows = files.rows(
            episodes, "windows", ["windows"], lambda to: write_windows(episodes, normaliser, to)
        )
        return WindowRows(rows["windows"], where.starts, where.last)
    if isinstance(draws, SegmentDraw):
        what = f"segments {draws.offsets[-1] + 1} {draws.discount} {draws.terminal_penalty}"
        names = SegmentRows._fields
        rows = files.rows(episodes, what, names, lambda to: write_rows(to, draws.prepare(episodes)._asdict()))
        return SegmentRows(**rows)
    if isinstance(draws, TransitionDraw):
        what = f"transitions {draws.next_actions}"
        rows = files.rows(
            episodes, what, ["rows"], lambda to: write_rows(to, {"rows": draws.prepare(episodes)})
        )
        return rows["rows"]
    return _any(draws, episodes, files)


def _any(draw: Draw, episodes: Episodes, files: RowFiles) -> PyTree:
    """A draw that a method brings itself: its rows are a pytree of arrays, told by the draw's settings."""
    like = jax.tree.structure(made := draw.prepare(episodes))
    names = [f"leaf-{i}" for i in range(like.num_leaves)]

    def write(to: Path) -> None:
        write_rows(to, dict(zip(names, map(np.atleast_1d, jax.tree.leaves(made)), strict=True)))

    rows = files.rows(episodes, repr(draw), names, write)
    leaves = [rows[n].reshape(np.shape(x)) for n, x in zip(names, jax.tree.leaves(made), strict=True)]
    return jax.tree.unflatten(like, leaves)
