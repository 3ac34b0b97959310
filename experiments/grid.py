"""Grids of runs: a small TOML file (docs/sweeps.md) becomes command lines, which their scripts check."""

import contextlib
import importlib
import itertools
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import tyro

from jdp.errors import UserError

EXPERIMENTS = Path(__file__).resolve().parent
KEYS = {"about": str, "script": str, "fixed": dict, "cross": dict}  # of a file, and of each of its [[part]]s


def read(name: str, out: Path) -> tuple[Path, dict[str, list[str]]]:
    """A grid file (a path, or the name of a shipped one) and its commands by the names of their cells; raises
    `UserError` for a file that cannot be read, an unknown key, a script that does not exist."""
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
    top: Mapping[str, Any], part: Mapping[str, Any], folder: Path
) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each cell of a part: all combinations of the values in [cross], with the [fixed].

    What stands at the top of the file holds for all parts; where both speak, the part is right.
    """
    for key, value in [*top.items(), *part.items()]:
        if not isinstance(value, KEYS.get(key, ())):
            known = "about and script (texts), [fixed] and [cross] (tables), [[part]]"
            raise UserError(f"{key} = {value!r} is not understood: a grid has {known}")
    fixed, cross = (flat(top.get(key, {})) | flat(part.get(key, {})) for key in ("fixed", "cross"))
    for option, values in cross.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"cross.{option} is {values!r}: it must be a list of values")
    name = part.get("script", top.get("script", ""))
    script = next((path for path in (EXPERIMENTS / name, folder / name) if path.is_file()), None)
    if script is None:
        raise UserError(
            f"no script {name!r}: name one of experiments/, or a path from the folder of the grid"
        )
    for values in itertools.product(*cross.values()):
        options = fixed | dict(zip(cross, values, strict=True))
        words = [word for option, value in options.items() for word in flag(option, value)]
        name = re.sub(r"[^\w.=+]+", "-", "-".join(map(str, values))).strip("-")
        yield name or script.stem, ["python", os.path.relpath(script), *words]


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one with the scripts' names of options: {"evaluation.episodes": 5}."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def flag(option: str, value: object) -> list[str]:
    """An option as words of a command line."""
    head, dot, last = option.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{head}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{head}{dot}{last}", *map(str, value if isinstance(value, list) else [value])]


def check(commands: Mapping[str, list[str]]) -> None:
    """Lets the scripts of experiments/ parse their cells' commands, without running them; raises `UserError`
    for the first one that is refused."""
    jax.config.update("jax_platforms", "cpu")  # of this process: accelerators are for the cells
    parse, argv = tyro.cli, sys.argv

    def parse_and_stop(*args: Any, **options: Any) -> object:
        found = parse(*args, **options)
        if options.get("return_unknown_args"):  # the first words, on which the others depend
            return found
        sys.exit()  # with 0, as for --help

    for name, command in commands.items():
        if Path(command[1]).resolve().parent == EXPERIMENTS:
            tyro.cli, sys.argv = parse_and_stop, command[1:]
            try:
                with contextlib.suppress(SystemExit):
                    importlib.import_module(Path(command[1]).stem).main()
            except UserError as error:
                raise UserError(f"cell {name}: {error}") from error
            except AttributeError as error:
                raise UserError(f"cell {name}: {Path(command[1]).name} is no script") from error
            finally:
                tyro.cli, sys.argv = parse, argv
