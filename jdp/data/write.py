"""The writer of HDF5 files of D4RL's layout, which are there complete or not at all."""

import contextlib
import os
from collections.abc import Mapping
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

    Raises:
        OSError: if it cannot be written.
    """
    import h5py

    part = path.with_name(f"{path.name}.part-{uuid4().hex[:8]}")
    try:
        with h5py.File(part, "w") as file:
            for key, values in columns.items():
                file.create_dataset(key, data=values, **storage)
            for key, value in metadata.items():
                file.create_dataset(f"metadata/{key}", data=value)
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
