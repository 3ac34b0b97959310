"""Grids of runs: one small TOML file (docs/sweeps.md), read, crossed and cut into cells, each one command."""

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jdp.errors import UserError

EXPERIMENTS = Path(__file__).resolve().parent
GRIDS = EXPERIMENTS / "grids"
KEYS = ("about", "script", "seeds", "pack", "first_seed", "fixed", "cross", "exclude", "cell", "part")
KINDS = {"about": str, "script": str, "seeds": int, "pack": int, "first_seed": int}
KINDS |= {"fixed": dict, "cross": dict, "exclude": list, "cell": list, "part": list}
OURS = {  # options that every cell gets from the sweep itself
    "seed": "give `seeds`, `pack` and `first_seed` instead",
    "seeds": "give `seeds = n` at the top instead",
    "out": "give --out to sweep.py",
    "resume": "sweep.py adds it",
}


@dataclass(frozen=True)
class Cell:
    """One command of a grid: some seeds of one setting, in one program."""

    name: str
    script: Path
    options: tuple[tuple[str, Any], ...]  # by the scripts' names, without dashes: ("evaluation.episodes", 5)

    def command(self, out: Path) -> list[str]:
        """The command line, which may be repeated until it exits with 0."""
        here = Path.cwd()
        script = self.script.relative_to(here) if self.script.is_relative_to(here) else self.script
        words = [word for name, value in self.options for word in flag(name, value)]
        return ["python", str(script), *words, "--out", str(out), "--resume", "auto"]


def flag(name: str, value: Any) -> list[str]:
    """An option as words of a command line."""
    head, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{head}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{head}{dot}{last}", *map(str, value if isinstance(value, list) else [value])]


def find(name: str) -> Path:
    """The grid file `name`: a path, or the name of a shipped one.

    Raises:
        UserError: if there is none.
    """
    shipped = {path.stem: path for path in sorted(GRIDS.glob("*.toml")) if path.stem != "costs"}
    if name in shipped:
        return shipped[name]
    if Path(name).is_file():
        return Path(name)
    raise UserError(f"no grid {name}: {nearest(Path(name).stem, shipped)}or give the path of a TOML file")


def nearest(word: str, words: Iterable[str]) -> str:
    """What a line about an unknown `word` goes on with."""
    words = list(words)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else f"choose one of {', '.join(words)} "


def read(path: Path) -> list[Cell]:
    """The cells of a grid file.

    Raises:
        UserError: for a file that cannot be read, an unknown key, a script that does not exist, a cell that
            stands there twice, an exclusion of nothing.
    """
    try:
        grid = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}".splitlines()[0]) from error
    check_keys(grid, str(path))
    parts = grid.pop("part", [])
    if parts and "cell" in grid:
        raise UserError(f"{path}: put [[cell]] into a [[part]] (as [[part.cell]]), for it needs one script")
    for i, part in enumerate(parts, 1):
        check_keys(part, f"{path}, part {i}", set(KEYS) - {"part"})
    wholes = [merged(grid, part) for part in parts] or [grid]
    found = [cell for whole in wholes for cell in cells_of(whole, path)]
    if not found:
        raise UserError(f"{path}: no cells: give [cross] or [[cell]]")
    return distinct(found, path)


def check_keys(part: Mapping[str, Any], where: str, known: Iterable[str] = KEYS) -> None:
    """Raises `UserError` for what does not belong into a grid."""
    for key, value in part.items():
        if key not in known:
            raise UserError(f"{where}: unknown key {key}: {nearest(key, known).strip()}")
        if not isinstance(value, KINDS[key]) or isinstance(value, bool):
            raise UserError(f"{where}: {key} is {value!r}: it must be a {KINDS[key].__name__}")
        if KINDS[key] is int and value < (0 if key == "first_seed" else 1):
            raise UserError(f"{where}: {key} is {value}: it must be at least {int(key != 'first_seed')}")
        if KINDS[key] is list and not all(isinstance(item, dict) for item in value):
            raise UserError(f"{where}: {key} must be a list of tables, [[{key}]]")


def merged(grid: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A part with what stands at the top of the file; where both say something, the part is right."""
    both = {key: {**grid.get(key, {}), **part.get(key, {})} for key in ("fixed", "cross")}
    return {**grid, **part, **both, "exclude": [*grid.get("exclude", []), *part.get("exclude", [])]}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one with dotted names, which are the scripts' names of options."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}".replace("-", "_")
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def cells_of(part: Mapping[str, Any], path: Path) -> list[Cell]:
    """The cells of one script: everything crossed that is not excluded, then the extra ones."""
    if "script" not in part:
        raise UserError(f"{path}: it names no script (script = 'offline_rl.py')")
    script, fixed = script_of(part["script"], path), flat(part.get("fixed", {}))
    axes = flat(part.get("cross", {}))
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{path}: cross.{name} is {values!r}: it must be a list of values")
    points = [crossed(axes, values) for values in itertools.product(*axes.values())] if axes else []
    for rule in map(flat, part.get("exclude", [])):
        kept = [point for point in points if not matches(rule, {**fixed, **point})]
        if len(kept) == len(points) and all(name in {**fixed, **axes} for name in rule):
            raise UserError(f"{path}: exclude {rule} matches no cell: remove it, or mend its values")
        points = kept
    points += [flat(extra) for extra in part.get("cell", [])]
    points = points or ([{}] if not axes and fixed else [])
    return [cell for point in points for cell in packed(part, script, fixed, point, path)]


def crossed(axes: Mapping[str, list[Any]], values: Iterable[Any]) -> dict[str, Any]:
    """The options of one point of the cross; a value that is a table is several options that go together."""
    found: dict[str, Any] = {}
    for name, value in zip(axes, values, strict=True):
        found |= flat(value) if isinstance(value, dict) else {name: value}
    return found


def matches(rule: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether every option of the rule has its value, or one of its list of values."""
    missing = object()
    return all(
        (have := options.get(name, missing)) == value or (isinstance(value, list) and have in value)
        for name, value in rule.items()
    )


def script_of(name: str, path: Path) -> Path:
    """A script of this folder by its name, or a path, from the grid's file or from here."""
    shipped = {p.name: p for p in sorted(EXPERIMENTS.glob("*.py"))}
    for script in (shipped.get(name), path.parent / name, Path(name)):
        if script is not None and script.is_file():
            return script.resolve()
    raise UserError(f"{path}: no script {name}: {nearest(Path(name).name, shipped).strip()}")


def packed(
    part: Mapping[str, Any], script: Path, fixed: Mapping[str, Any], point: Mapping[str, Any], path: Path
) -> list[Cell]:
    """The cells of one setting: `pack` seeds each, trained at once in one program."""
    options = {**fixed, **point}
    for name in options:
        if name in OURS:
            raise UserError(f"{path}: {name} cannot be an option of a cell: {OURS[name]}")
    name = "-".join(label(key, value) for key, value in point.items()) or script.stem
    if "seeds" not in part:
        return [Cell(name, script, tuple(options.items()))]
    first, count = part.get("first_seed", 0), part["seeds"]
    pack, found = part.get("pack", count), []
    for begin in range(0, count, pack):
        size = min(pack, count - begin)
        seed, last = first + begin, first + begin + size - 1
        tail = f"seed{seed}" if size == 1 else f"seeds{seed}-{last}"
        found.append(Cell(f"{name}-{tail}", script, (*options.items(), ("seed", seed), ("seeds", size))))
    return found


def label(name: str, value: Any) -> str:
    """What a cell's name says of an option."""
    words = [Path(str(v)).name if isinstance(v, str) else str(v) for v in flag("", value)[1:]]
    text = "+".join(words) if words else str(value).lower()
    short = text if isinstance(value, str | list) else f"{name.rpartition('.')[2]}={text}"
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", short)


def distinct(cells: list[Cell], path: Path) -> list[Cell]:
    """The cells under different names; raises `UserError` where one stands there twice."""
    seen: dict[Any, str] = {}
    names: dict[str, int] = {}
    found = []
    for cell in cells:
        key = cell.script, tuple(sorted((name, str(value)) for name, value in cell.options))
        if key in seen:
            raise UserError(f"{path}: {cell.name} stands there twice: exclude it, or remove it from [[cell]]")
        seen[key] = cell.name
        names[cell.name] = names.get(cell.name, 0) + 1
        number = names[cell.name]
        name = cell.name if number == 1 else f"{cell.name}-{number}"
        found.append(Cell(name, cell.script, cell.options))
    return found
