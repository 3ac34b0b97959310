"""What a recipe is, and the file that holds the rows it made."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from jdp.data import d4rl
from jdp.data.write import write_columns
from jdp.errors import UserError

LICENCE = "MIT: rows made by jdp (the recipe is D4RL's, whose own files are CC BY 4.0)"


class MakeRows(Protocol):
    """Makes the columns `[rows, ...]` of a D4RL file, equal for equal arguments."""

    def __call__(
        self, seed: int, rows: int, progress: Callable[[int], None] | None
    ) -> dict[str, np.ndarray]: ...


class Making(NamedTuple):
    """What is made, and how it is shown."""

    seed: int = 0
    rows: int | None = None  # None: as many as the official file has
    progress: Callable[[int, int], None] | None = None  # called with (rows made, rows in all)


class Recipe(NamedTuple):
    """How one dataset was made, to be made again."""

    name: str  # of the dataset, in full
    whose: str  # "D4RL"
    rows: int  # of the official file
    facts: Mapping[str, str | int | float]  # what decides the rows, besides the seed
    make: MakeRows

    def describe(self) -> str:
        """The facts in one line."""
        return ", ".join(f"{key} {value}" for key, value in self.facts.items())


def digest(recipe: Recipe, seed: int, rows: int) -> str:
    """16 hexadecimal digits that tell apart what a file may hold: recipe, seed and number of rows."""
    known = json.dumps([recipe.name, dict(recipe.facts), seed, rows], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def path_of(recipe: Recipe, seed: int, rows: int) -> Path:
    """Where the file lies, in the folder of D4RL's files, whether or not it is there.

    Raises:
        UserError: if there is no such folder (see `jdp.data.d4rl.dataset_dir`).
    """
    return d4rl.dataset_dir() / f"{recipe.name}-recipe-seed{seed}-{digest(recipe, seed, rows)}.hdf5"


def made(recipe: Recipe, making: Making) -> Path:
    """The file with those rows, made where it is not there yet, complete or not at all.

    Raises:
        UserError: for a seed or a number of rows that mean nothing, a file of that name that is another
            or broken, or a folder that cannot be written to.
    """
    seed, rows = making.seed, recipe.rows if making.rows is None else making.rows
    if rows < 1 or seed < 0:
        raise UserError(f"{recipe.name}: {rows} rows of seed {seed}; rows must be at least 1, the seed 0")
    path = path_of(recipe, seed, rows)
    if path.exists():
        _check(path, digest(recipe, seed, rows), rows)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise OSError("the folder cannot be written to")
    except OSError as error:
        raise _unwritable(path, error) from error
    shown = making.progress
    columns = recipe.make(seed, rows, None if shown is None else lambda done: shown(done, rows))
    facts = {**recipe.facts, "seed": seed, "rows": rows, "digest": digest(recipe, seed, rows)}
    try:
        write_columns(path, columns, facts)  # noise does not compress, and plain arrays are read in a moment
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"could not write {path}: {error}; free its folder, or set D4RL_DATASET_DIR to another folder"
    )


def _check(path: Path, expected: str, rows: int) -> None:
    try:
        with d4rl.opened(path) as (file, metadata):
            found, count = metadata.get("digest"), len(d4rl.array_node(file, "rewards", str(path)))
    except UserError as error:
        raise UserError(f"{error}; delete it, and the recipe makes it again") from error
    if found != expected or count != rows:
        raise UserError(f"{path} is not the file that the recipe made; delete it, and it is made again")
