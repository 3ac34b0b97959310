"""Arrays in files that the system maps into memory: read where they are touched, written piece by piece."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from jdp.data import checks, d4rl
from jdp.data.episodes import Episodes
from jdp.data.normalise import Normaliser, training_rows
from jdp.errors import StorageError, UserError
from jdp.types import PyTree

PIECE = 1 << 16  # rows that are in memory at once


def _write(path: Path, dtype: np.dtype, shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> None:
    """One `.npy` file, under another name until it is whole."""
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:  # not mapped: a full disk is then an error and not a signal
            np.lib.format.write_array_header_2_0(file, header)
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype).data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror or error}): make room") from error


def write_rows(folder: Path, arrays: Mapping[str, np.ndarray], *, piece: int = PIECE) -> None:
    """Writes every array as `folder/name.npy`.

    Raises:
        StorageError: if it cannot be written, for instance to a full disk.
    """
    for name, array in arrays.items():
        pieces = (array[i : i + piece] for i in range(0, len(array), piece))
        _write(folder / f"{name}.npy", array.dtype, array.shape, pieces)


def map_rows(folder: Path, names: Iterable[str]) -> dict[str, np.memmap]:
    """The arrays of `write_rows`, read from the disk where they are touched.

    Raises:
        UserError: if one is missing or cut.
    """
    return {name: _map(folder / f"{name}.npy") for name in names}


def _map(path: Path) -> np.memmap:
    try:
        return np.lib.format.open_memmap(path, "r")
    except (OSError, ValueError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(
            f"{path} cannot be read ({reason}): delete it, so that it is written again"
        ) from error


def check_files(rows: PyTree) -> None:
    """Raises `UserError` where the file of a memory-mapped leaf is gone or was cut.

    Touching a page behind the end of a file would kill the process: ask before reading.
    """
    for leaf in jax.tree.leaves(rows):
        if not isinstance(leaf, np.memmap) or leaf.filename is None:
            continue
        path = Path(leaf.filename)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): add --resume to write it again"
            ) from error
        if size < leaf.offset + leaf.nbytes:
            raise UserError(
                f"{path} was cut to {size:,} bytes: delete it, and add --resume to write it again"
            )


def copy_d4rl(path: Path, folder: Path, *, piece: int = PIECE) -> d4rl.Arrays:
    """`d4rl.read` of a file that may not fit the memory: copied in pieces, checked and mapped.

    A copy that is there already is taken: keep a folder for each file.

    Raises:
        UserError: as `d4rl.read`; rows that it names are counted from the piece's first.
    """
    checked = {
        "observations": checks.float_rows,
        "actions": checks.float_rows,
        "rewards": checks.float_column,
        "next_observations": checks.float_rows,
        "terminals": checks.flag_column,
        "timeouts": checks.flag_column,
    }
    found: dict[str, np.ndarray | None] = dict.fromkeys(checked)
    with d4rl.opened(path) as (file, metadata):
        for key in [key for key in checked if key in file]:
            node, to = d4rl.array_node(file, key, str(path)), folder / f"{key}.npy"
            if not to.exists():

                def pieces(key: str = key, node=node) -> Iterator[np.ndarray]:
                    for i in range(0, len(node), piece):
                        values = d4rl.array_values(node, slice(i, i + piece), key, str(path))
                        yield checked[key](values, key, f"{path}, rows from {i:,}")

                flat = checked[key] is not checks.float_rows
                dtype = np.dtype(bool if checked[key] is checks.flag_column else np.float32)
                _write(to, dtype, node.shape[:1] if flat else node.shape, pieces())
            found[key] = _map(to)
    arrays = d4rl.Arrays(**found, metadata=metadata)  # pyright: ignore[reportArgumentType]
    d4rl.check(arrays, str(path))
    return arrays


def write_windows(
    episodes: Episodes, normaliser: Normaliser, folder: Path, *, piece: int = PIECE
) -> np.memmap:
    """The encoded rows of `training_rows`, `[M, D]` float32, written in parts of whole episodes, mapped."""
    count = len(episodes) + int(episodes.terminated.sum())
    shape = (count, len(normaliser.mean))
    pieces = (training_rows(part, normaliser)[0] for part in _parts(episodes, piece))
    _write(folder / "windows.npy", np.dtype(np.float32), shape, pieces)
    return _map(folder / "windows.npy")


def _parts(episodes: Episodes, piece: int) -> Iterator[Episodes]:
    """`episodes` in parts of whole episodes, of about `piece` rows."""
    first = 0
    while first < len(episodes.starts):
        begin = episodes.starts[first]
        last = max(int(np.searchsorted(episodes.stops, begin + piece, side="right")), first + 1)
        rows = slice(begin, episodes.stops[last - 1])
        named = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
        cut = {name: getattr(episodes, name)[rows] for name in (*named, "next_valid")}
        span = {name: getattr(episodes, name)[first:last] - begin for name in ("starts", "stops")}
        yield dataclasses.replace(episodes, **cut, **span)
        first = last
