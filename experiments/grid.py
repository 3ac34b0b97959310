"""Grids of runs: a small TOML file (docs/sweeps.md) becomes command lines, which their scripts check."""

import importlib
import itertools
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import command_line
import jax

from jdp.errors import UserError
from jdp.runs.settings import flat

EXPERIMENTS = Path(__file__).resolve().parent
KEYS = {"about": str, "script": str, "fixed": dict, "cross": dict}  # of a file, and of each of its [[part]]s


def read(name: str, out: Path) -> tuple[Path, dict[str, list[str]]]:
    """A grid file (a path, or the name of a shipped one) and its commands by the names of their cells.

    Raises:
        UserError: for a file that cannot be read, an unknown key, a script that does not exist.
    """
    shipped = {path.stem: path for path in sorted((EXPERIMENTS / "grids").glob("*.toml"))}
    path, commands = shipped.get(name, Path(name)), {}
    if not path.is_file():
        raise UserError(f"no grid {name}: give the path of a file, or one of {', '.join(shipped)}")
    try:
        top = tomllib.loads(path.read_text())
        parts = top.pop("part", [{}])
        if not (isinstance(parts, list) and parts and all(isinstance(part, dict) for part in parts)):
            raise UserError("part must be a list of tables, [[part]]")
        for cell, command in (cell for part in parts for cell in cells_of(top, part, path.parent)):
            command += ["--out", str(out), "--resume", "auto"]
            if command not in commands.values():
                commands[f"{cell}-{len(commands)}" if cell in commands else cell] = command
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path}: {error}".splitlines()[0]) from error
    return path, commands


def cells_of(
    top: Mapping[str, object], part: Mapping[str, object], folder: Path
) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each cell of a part: all combinations of the values in [cross], with the [fixed].

    What stands at the top of the file holds for all parts; where both speak, the part is right.
    """
    for key, value in [*top.items(), *part.items()]:
        if not isinstance(value, KEYS.get(key, ())):
            known = "about and script (texts), [fixed] and [cross] (tables), [[part]]"
            raise UserError(f"{key} = {value!r} is not understood: a grid has {known}")
    both, name = flat(top) | flat(part), str(part.get("script", top.get("script", "")))
    fixed, cross = (
        {option.removeprefix(kind): value for option, value in both.items() if option.startswith(kind)}
        for kind in ("fixed.", "cross.")
    )
    for option, values in cross.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"cross.{option} is {values!r}: it must be a list of values")
    script = next((path for path in (EXPERIMENTS / name, folder / name) if path.is_file()), None)
    if script is None:
        raise UserError(f"no script {name!r}: name one of experiments/, or a path from the grid's folder")
    for values in itertools.product(*cross.values()):
        options = fixed | dict(zip(cross, values, strict=True))
        words = [word for option, value in options.items() for word in flag(option, value)]
        name = re.sub(r"[^\w.=+]+", "-", "-".join(map(str, values))).strip("-")
        yield name or script.stem, ["python", os.path.relpath(script), *words]


def flag(option: str, value: object) -> list[str]:
    """An option as words of a command line."""
    head, dot, last = option.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{head}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{head}{dot}{last}", *map(str, value if isinstance(value, list) else [value])]


def check(commands: Mapping[str, list[str]]) -> None:
    """Raises `UserError` for the first command that its script, one of experiments/, does not take."""
    jax.config.update("jax_platforms", "cpu")  # of this process: accelerators are for the cells
    for name, command in commands.items():
        script = Path(command[1])
        if script.resolve().parent == EXPERIMENTS:
            try:
                command_line.check(importlib.import_module(script.stem).main, command[1:])
            except UserError as error:
                raise UserError(f"cell {name}: {error}") from error
            except AttributeError as error:
                raise UserError(f"cell {name}: {script.name} is no script") from error
