"""What a recipe is, and the file that holds the rows it made."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from jdp.data.recipes.blocks import Facts
from jdp.errors import UserError


class Making(NamedTuple):
    """What is made, and how it is shown."""

    seed: int = 0
    rows: int | None = None  # None: as many as the official file has
    progress: Callable[[int, int], None] | None = None  # called with (rows made, rows in all)
    processes: int = 1  # that make episodes, where a recipe makes episodes apart; no row depends on it


class Order(NamedTuple):
    """One file to be made."""

    seed: int
    first: int  # rows of the training part, before a validation part; else 0
    rows: int
    facts: Facts  # to be written down in it: the recipe's, and seed, rows and digest
    processes: int
    progress: Callable[[int], None] | None  # called with the number of rows so far


class WriteFile(Protocol):
    """Makes the file at `path`, complete or not at all; equal orders give equal bytes.

    Raises:
        OSError: if it cannot be written.
        UserError: if a package is missing.
    """

    def __call__(self, path: Path, order: Order) -> None: ...


class Store(NamedTuple):
    """Where the files of one layout lie, and how they are told apart."""

    folder: Callable[[], Path]
    variable: str  # of the environment, which names the folder
    suffix: str
    told: Callable[[Path], tuple[str | None, int]]  # digest and number of rows; UserError of a broken file


class Recipe(NamedTuple):
    """How one dataset was made, to be made again."""

    name: str  # of the dataset, in full
    whose: str  # "D4RL"
    rows: int  # of the official file
    facts: Facts  # what decides the rows, besides the seed
    write: WriteFile
    store: Store
    licence: str
    episode: int = 1  # rows that only come together
    part: str = ""  # "-val": not the training part, but a tenth as many episodes, which follow it

    def describe(self) -> str:
        """The facts in one line."""
        return ", ".join(f"{key} {value}" for key, value in self.facts.items())

    def training_rows(self, rows: int | None) -> int:
        """Rows of the training part, in whole episodes, where `rows` are asked for."""
        if rows is None:
            return self.rows * (10 if self.part else 1)
        return -(-rows // self.episode) * self.episode

    def file_rows(self, rows: int | None) -> int:
        """Rows of the file, where `rows` are asked for of the training part."""
        training = self.training_rows(rows)
        return training // self.episode // 10 * self.episode if self.part else training


def digest(recipe: Recipe, seed: int, rows: int) -> str:
    """16 hexadecimal digits that tell apart what a file may hold: recipe, seed, rows of the training part."""
    known = json.dumps([recipe.name.removesuffix("-val"), dict(recipe.facts), seed, rows], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def path_of(recipe: Recipe, seed: int, rows: int | None = None) -> Path:
    """Where the file lies, in its store's folder, whether or not it is there.

    Raises:
        UserError: if there is no such folder (see `jdp.data.d4rl.folder_of`).
    """
    name, told = recipe.name.removesuffix("-val"), digest(recipe, seed, recipe.training_rows(rows))
    return recipe.store.folder() / f"{name}-recipe-seed{seed}-{told}{recipe.part}{recipe.store.suffix}"


def made(recipe: Recipe, making: Making) -> Path:
    """The file with those rows, made where it is not there yet, complete or not at all.

    Raises:
        UserError: for a seed, a number of rows or of processes that mean nothing, a file of that name that is
            another or broken, a folder that cannot be written to, or a package that is missing.
    """
    seed, rows = making.seed, recipe.file_rows(making.rows)
    if (making.rows is not None and making.rows < 1) or seed < 0:
        raise UserError(
            f"{recipe.name}: {making.rows} rows of seed {seed}; rows must be at least 1, the seed 0"
        )
    if rows < 1:
        raise UserError(f"{recipe.name}: ask for {10 * recipe.episode} rows or more, of which it has a tenth")
    if making.processes < 1:
        raise UserError(f"{recipe.name}: {making.processes} processes; there must be at least 1")
    path, training = path_of(recipe, seed, making.rows), recipe.training_rows(making.rows)
    if path.exists():
        _check(recipe, path, digest(recipe, seed, training), rows)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise OSError("the folder cannot be written to")
    except OSError as error:
        raise _unwritable(recipe, path, error) from error
    shown = making.progress
    order = Order(
        seed,
        training if recipe.part else 0,
        rows,
        {**recipe.facts, "seed": seed, "rows": rows, "digest": digest(recipe, seed, training)},
        making.processes,
        None if shown is None else lambda done: shown(done, rows),
    )
    try:
        recipe.write(path, order)
    except OSError as error:
        raise _unwritable(recipe, path, error) from error
    return path


def _unwritable(recipe: Recipe, path: Path, error: OSError) -> UserError:
    variable = recipe.store.variable
    return UserError(f"could not write {path}: {error}; free its folder, or set {variable} to another folder")


def _check(recipe: Recipe, path: Path, expected: str, rows: int) -> None:
    try:
        found, count = recipe.store.told(path)
    except UserError as error:
        raise UserError(f"{error}; delete it, and the recipe makes it again") from error
    if found != expected or count != rows:
        raise UserError(f"{path} is not the file that the recipe made; delete it, and it is made again")
