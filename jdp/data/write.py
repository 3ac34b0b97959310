"""Writers of files of rows, which are there complete or not at all: HDF5 of D4RL's layout, and npz."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np


def write_columns(
    path: Path,
    columns: Mapping[str, np.ndarray],
    metadata: Mapping[str, str | int | float],
    **storage: str | int | bool,
) -> None:
    """Writes the file beside `path` and moves it there; `storage` is h5py's, of every column.

    It is made in memory first: where a disk is full, HDF5 itself prints, and may end the process.

    Raises:
        OSError: if it cannot be written.
    """
    import h5py

    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        for key, values in columns.items():
            file.create_dataset(key, data=values, **storage)
        for key, value in metadata.items():
            file.create_dataset(f"metadata/{key}", data=value)
        file.flush()
        content = file.id.get_file_image()
    with _moved_to(path) as part:
        part.write_bytes(content)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays` as npz beside `path` and moves it there; equal arrays give equal bytes.

    Raises:
        OSError: if it cannot be written.
    """
    with _moved_to(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


@contextlib.contextmanager
def _moved_to(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, whose file becomes `path` at the end, or is removed."""
    part = path.with_name(f"{path.name}.part-{uuid4().hex[:8]}")
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
