"""The tables and figures of all finished runs, of those of one sweep, or of those on one dataset.

    python experiments/table.py
    python experiments/table.py --sweep NAME
    python experiments/table.py --env hopper-medium

Reads results/{offline_rl,plan,policies,pgd_d4rl}/<dataset>/*/scores.json, or the runs that
results/sweeps/NAME/cells.json names, and writes results/tables/<name>/: table.md, table.tex, table.csv and
the figures as PNG and PDF. Runs of one method and setting that differ only in seed are one cell; scores are
of last checkpoints. Runs of the smoke preset are no results and are refused. Scores over time per decision,
and two runs compared: experiments/planning_table.py.
"""

import difflib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import table_grids as grids
import tyro
from common import run_main
from table_cells import Cell, cells_of
from table_figures import draw
from table_text import latex, markdown
from tables import EXPERIMENTS, finished, plain, read, without_smoke, write

from jdp.errors import UserError
from jdp.runs.directories import replace_text


@dataclass(frozen=True)
class Config:
    """Make the tables and figures of finished runs."""

    sweep: str | None = None
    """Only the runs of this sweep."""
    env: str | None = None
    """Only runs on this dataset, as it was given to the scripts."""
    name: str | None = None
    """Of the folder in tables/ that is written; without it that of the sweep or dataset, or "all"."""
    readme: bool = False
    """Also show the tables in README.md beside the runs, in place of those of the same name."""
    out: Path = Path("results")
    """Where the runs are; the tables go to tables/ in it."""


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    runs, missing = of_sweep(config) if config.sweep else (of_folders(config), [])
    cells = cells_of(runs)
    name = plain(config.name or config.sweep or config.env or "all")
    target = config.out / "tables" / name
    sections = by_unit(cells)
    figures = [line for section in sections for line in draw(section, target)]
    tables = [grids.matrix(section) for section in sections]
    made_by = shlex.join(["python", "experiments/table.py", *sys.argv[1:]])
    rows = grids.commands(cells)
    parts = [f"# {name}", "", *map(markdown, tables), *figures, markdown(grids.details(cells))]
    write(target, "\n".join([*parts, *rows, *missing, f"Made by `{made_by}`."]) + "\n", grids.records(cells))
    comments = [f"% {line}" for line in ["usepackage booktabs", f"made by {made_by}", *rows, *missing]]
    tex = [*map(latex, tables), latex(grids.details(cells))]
    replace_text(target / "table.tex", "\n".join([*comments, "", *tex]))
    if config.readme:
        show(config.out / "README.md", name, cells, [*map(markdown, tables), *missing])


def of_folders(config: Config) -> list[dict[str, Any]]:
    """All finished runs, or those on one dataset."""
    pattern = plain(config.env) if config.env else "*"
    folders = [f for experiment in EXPERIMENTS for f in sorted(config.out.glob(f"{experiment}/{pattern}"))]
    hint = f"python experiments/offline_rl.py --agent td3_bc --env {config.env or 'hopper-medium'}"
    if config.env and not folders:
        known = sorted({f.name for e in EXPERIMENTS for f in config.out.glob(f"{e}/*")})
        there = f"there is {', '.join(known)}" if known else hint
        raise UserError(f"no run on {config.env} in {config.out}: {there}")
    return finished(folders or [config.out], hint)


def of_sweep(config: Config) -> tuple[list[dict[str, Any]], list[str]]:
    """The finished runs of a sweep, and a line for every cell that is not finished.

    Raises:
        UserError: if there is no such sweep, none of its runs is finished, or one is gone.
    """
    path = config.out / "sweeps" / str(config.sweep) / "cells.json"
    if not path.exists():
        known = sorted(p.parent.name for p in config.out.glob("sweeps/*/cells.json"))
        near = difflib.get_close_matches(str(config.sweep), known, n=1) or known
        hint = f"there is {', '.join(near)}" if near else "experiments/sweep.py makes one"
        raise UserError(f"no sweep {config.sweep} in {config.out / 'sweeps'}: {hint}")
    try:
        sweep = json.loads(path.read_text())
        cells = [(c["name"], c["status"], c["run"], c["error"]) for c in sweep["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of cells ({error}): move {path.parent} away") from error
    missing = [
        f"Not in the table: {name}, {status}{f' ({error})' if error else ''}."
        for name, status, _, error in cells
        if status != "finished"
    ]
    print("\n".join(missing))
    found = dict.fromkeys(place(Path(run), config.out) for _, status, run, _ in cells if status == "finished")
    hint = f"python experiments/sweep.py {sweep.get('file', config.sweep)} --out {config.out}"
    return without_smoke([read(run / "scores.json") for run in found], str(path), hint), missing


def place(run: Path, out: Path) -> Path:
    """The run's directory, also where the results were moved as a whole."""
    return run if run.exists() else out / Path(*run.parts[-3:])


def by_unit(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Scores of one kind beside each other: normalised, then shares of success, then returns."""
    names = sorted({cell.first["score_name"] for cell in cells}, key=lambda n: (n == "return", n))
    return [[cell for cell in cells if cell.first["score_name"] == name] for name in names]


def show(readme: Path, name: str, cells: Sequence[Cell], parts: Sequence[str]) -> None:
    """Puts `parts` between the marks of this table in the README, at its end where it has none."""
    presets = ", ".join(sorted({cell.first["preset"] for cell in cells}))
    updates, seeds = span(cell.first["updates"] for cell in cells), span(len(cell.seeds) for cell in cells)
    facts = (
        f"Preset {presets}; {updates} updates; {seeds} seeds a cell. Every cell's numbers, cost and command: "
        f"[table.md](tables/{name}/table.md), [table.csv](tables/{name}/table.csv)."
    )
    begin, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    text = readme.read_text() if readme.exists() else ""
    section = "\n".join([begin, f"# {name}", "", facts, "", *parts, end])
    old = re.compile(rf"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if old.search(text):
        text = old.sub(lambda _: section, text, count=1)
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    replace_text(readme, text.lstrip())
    print(f"shown in {readme}")


def span(values: Iterable[int]) -> str:
    """ "1,000", or "1,000 to 20,000"."""
    found = sorted(set(values))
    return " to ".join(f"{value:,}" for value in dict.fromkeys((found[0], found[-1])))


if __name__ == "__main__":
    run_main(main)
