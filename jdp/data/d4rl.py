"""Reader of the D4RL layout: flat HDF5 arrays, one row a step."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from jdp.data import checks
from jdp.errors import UserError

REQUIRED = ("observations", "actions", "rewards", "terminals")
LICENCE = "CC BY 4.0 (D4RL)"


class Arrays(NamedTuple):
    """The checked content of a file; the keys that a file may lack are None."""

    observations: np.ndarray  # [N, O] float32
    actions: np.ndarray  # [N, A] float32, in the units of the file
    rewards: np.ndarray  # [N] float32
    next_observations: np.ndarray | None  # [N, O] float32
    terminals: np.ndarray  # [N] bool
    timeouts: np.ndarray | None  # [N] bool
    metadata: dict[str, str]  # the scalar entries of `metadata/`


def dataset_dir() -> Path:
    """`$D4RL_DATASET_DIR` or `~/.d4rl/datasets`, as in d4rl, so that its files are shared.

    Raises:
        UserError: if neither is known.
    """
    return folder_of("D4RL_DATASET_DIR", ".d4rl/datasets")


def folder_of(variable: str, at_home: str) -> Path:
    """The folder that an environment variable names, else one in the home folder.

    Raises:
        UserError: if the variable is not set and this user has no home folder.
    """
    if given := os.environ.get(variable):
        return Path(given).expanduser()
    try:
        return Path.home() / at_home
    except RuntimeError as error:
        raise UserError(f"this user has no home folder: set {variable} to a folder of datasets") from error


def local_path(url: str) -> Path:
    """Where the file of `url` lies on disk, whether or not it is there."""
    return dataset_dir() / Path(urlsplit(url).path).name


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> Arrays:
    """All arrays of a D4RL-layout HDF5 file.

    `next_observations` and `timeouts` are read where present; `(N, 1)` columns become `(N,)`.

    Raises:
        UserError: if the file cannot be opened (missing, truncated, no HDF5), lacks a key, holds
            NaNs, other shapes or unequal lengths.
    """
    where = str(path)
    with opened(path) as (file, metadata):

        def get(key: str) -> np.ndarray:
            return array_values(array_node(file, key, where), (), key, where)

        arrays = Arrays(
            observations=checks.float_rows(get("observations"), "observations", where),
            actions=checks.float_rows(get("actions"), "actions", where),
            rewards=checks.float_column(get("rewards"), "rewards", where),
            next_observations=checks.float_rows(get("next_observations"), "next_observations", where)
            if "next_observations" in file
            else None,
            terminals=checks.flag_column(get("terminals"), "terminals", where),
            timeouts=checks.flag_column(get("timeouts"), "timeouts", where) if "timeouts" in file else None,
            metadata=metadata,
        )
    check(arrays, where)
    return arrays


@contextmanager
def opened(path: Path):
    """`(file, metadata)` of a D4RL-layout file that has the keys; raises `UserError` as `read`."""
    with _open(path) as file:
        _require_keys(file, str(path))
        yield file, _metadata(file)


def told(path: Path) -> tuple[str | None, int]:
    """The digest of the recipe that made a file, None of other files, and its rows; raises as `read`."""
    with opened(path) as (file, metadata):
        return metadata.get("digest"), len(array_node(file, "rewards", str(path)))


def array_node(file, key: str, where: str):
    """The HDF5 dataset `key`; raises `UserError` for a group, or where it is no array of rows."""
    import h5py

    node = file[key]
    if not isinstance(node, h5py.Dataset):
        raise UserError(f"{where}: {key!r} is a group, not an array")
    if not node.shape:
        raise UserError(f"{where}: {key!r} is {node.dtype} {node.shape}, not one number a row")
    return node


def array_values(node, rows, key: str, where: str) -> np.ndarray:
    """Those `rows` (an index, `()` for all) of an HDF5 dataset; raises `UserError` where it is broken."""
    try:
        return np.asarray(node[rows])
    except OSError as error:
        raise UserError(f"{where}: {key!r} cannot be read ({error}); is the copy complete?") from error


def read_keys(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of the arrays `keys` that the file has, unchecked."""
    import h5py

    with _open(path) as file:
        nodes = {key: file[key] for key in keys if key in file}
        return {key: np.asarray(node[()]) for key, node in nodes.items() if isinstance(node, h5py.Dataset)}


def check_layout(path: Path) -> None:
    """Raises `UserError` unless `path` opens as HDF5 and has the keys; reads no array."""
    with _open(path) as file:
        _require_keys(file, str(path))


def _open(path: Path):
    import h5py

    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of an HDF5 file in it")
    if not path.exists():
        raise UserError(f"no file {path}; check the path")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{path} does not open as HDF5 ({reason}); is the copy complete?") from error


def _require_keys(file, where: str) -> None:
    missing = [key for key in REQUIRED if key not in file]
    if missing:
        raise UserError(
            f"{where}: no key {', '.join(map(repr, missing))}; the D4RL layout needs "
            f"{', '.join(REQUIRED)}, the file has {', '.join(file) or 'none'}"
        )


def _metadata(file) -> dict[str, str]:
    import h5py

    group = file.get("metadata")
    if not isinstance(group, h5py.Group):
        return {}
    scalars = {k: v[()] for k, v in group.items() if isinstance(v, h5py.Dataset) and v.shape == ()}
    return {k: v.decode(errors="replace") if isinstance(v, bytes) else str(v) for k, v in scalars.items()}


def check(arrays: Arrays, where: str) -> None:
    """Raises `UserError` unless the arrays go together."""
    columns = {k: v for k, v in arrays._asdict().items() if isinstance(v, np.ndarray)}
    checks.same_length(columns, where)
    successors = arrays.next_observations
    if successors is not None and successors.shape != arrays.observations.shape:
        raise UserError(
            f"{where}: 'next_observations' has {successors.shape[1]} channels, "
            f"'observations' {arrays.observations.shape[1]}"
        )
