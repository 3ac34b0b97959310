"""The tables and figures of all finished runs, of those of one sweep, or of those on one dataset.

    python experiments/table.py
    python experiments/table.py --sweep NAME
    python experiments/table.py --env pointmaze-large --latency
    python experiments/table.py --compare RUN_A RUN_B

Writes results/tables/<name>/: table.md, table.tex, table.csv (one row a cell, with its command) and the
figures as PNG and PDF. Runs of one method and setting that differ only in seed are one cell; scores are of
last checkpoints. Runs of the smoke preset are no results and are refused. With `--sweep` the small files of
the runs are kept in runs/ there: from them the table is made again, and the sweep goes on, elsewhere.
`--latency` makes the table of all planners and policies on one dataset, score beside the time of a decision,
with cost.png; `--compare` prints the difference between two runs.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from command_line import parse, run_main

from jdp.errors import UserError
from jdp.runs.cells import drop_repeated, pool_seeds
from jdp.runs.comparison import check_same_data, compare, find_run
from jdp.runs.directories import dataset_folder, replace_text
from jdp.runs.frame import on_dataset, read_runs
from jdp.runs.kept import keep_runs
from jdp.runs.table_figures import cost_figure, table_figures
from jdp.runs.tables import details, matrix, records
from jdp.runs.texts import latex, markdown


@dataclass(frozen=True)
class Config:
    """Make the tables and figures of finished runs, or compare two."""

    sweep: str | None = None
    """Only the runs of this sweep."""
    env: str | None = None
    """Only runs on this dataset, as it was given to the scripts."""
    latency: bool = False
    """Score beside the time of a decision, of all planners and policies on one dataset."""
    compare: tuple[str, str] | None = None
    """Print the difference between two finished runs, named by their directories (RUN~ARM for an arm)."""
    name: str | None = None
    """Of the folder in tables/ that is written; without it that of the sweep or dataset, or "all"."""
    readme: bool = False
    """Also show the tables in README.md beside the runs, in place of those of the same name."""
    out: Path = Path("results")
    """Where the runs are; the tables go to tables/ in it."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    runs = every = read_runs(config.out, config.sweep)
    if config.env is not None and (runs := on_dataset(every, config.env)).empty:
        known = ", ".join(sorted(every.env.dropna().unique()))
        raise UserError(
            f"no run on {config.env} in {config.out}: {f'there is {known}' if known else command_for(config)}"
        )
    if config.compare is not None:
        print(compare(*(find_run(name, runs) for name in config.compare)))
        return
    missing = unfinished_lines(runs) if config.sweep else []
    runs = results_of(runs, config)
    if config.sweep is not None:
        keep_runs(config.out, config.sweep, map(Path, runs.path.unique()))
    if repeated := len(runs) - len(drop_repeated(runs)):
        print(f"left out: {repeated} run{'s' * (repeated > 1)} that another of the same seed repeats")
    cells = pool_seeds(runs)
    if config.latency:
        write_latency(cells, config)
    else:
        write(cells, missing, config)


def command_for(config: Config) -> str:
    """A command that makes what is missing."""
    if config.sweep is not None:
        return f"go on with python experiments/sweep.py GRID for {config.sweep}"
    method = "plan.py --planner diffuser" if config.latency else "offline_rl.py --agent td3_bc"
    return f"python experiments/{method} --env {config.env or 'hopper-medium'}"


def unfinished_lines(runs: pd.DataFrame) -> list[str]:
    """A line for every cell of a sweep that is not in its table."""
    left = runs[~runs.status.isin(["finished", "broken"])]
    lines = [
        f"Not in the table: {cell.cell}, {cell.status}{f' ({cell.error})' if cell.error else ''}."
        for cell in left.itertuples()
    ]
    print("\n".join(lines))
    return lines


def results_of(runs: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Finished runs with scores, without those of the smoke preset: they are no results.

    Raises:
        UserError: if there is none, or one that finished cannot be read.
    """
    for run in runs[runs.status == "broken"].itertuples():
        if not Path(str(run.path)).exists() or (Path(str(run.path)) / "scores.json").exists():
            raise UserError(f"{run.path} is no whole finished run ({run.error}): move it away")
    runs = runs[(runs.status == "finished") & runs.scores.notna()]
    for run in runs[runs.sha256.isna()].itertuples():
        raise UserError(f"{run.path} does not say which data it is on (no sha256): move it away")
    if config.latency:
        runs = runs[runs.latency.notna()]
    real = runs[runs.preset != "smoke"]
    if smoke := runs.path.nunique() - real.path.nunique():
        print(f"refused: {smoke} run{'s' * (smoke > 1)} of the smoke preset")
    if real.empty:
        timed = " with timed decisions" if config.latency else ""
        raise UserError(
            f"{config.out} holds no finished run of the cpu or paper preset{timed}: {command_for(config)}"
        )
    return real


def write(cells: pd.DataFrame, missing: list[str], config: Config) -> None:
    """All files of a table; scores of one kind beside each other: normalised, then success, then returns."""
    name = dataset_folder(config.name or config.sweep or config.env or "all")
    target = config.out / "tables" / name
    units = sorted(cells.score_name.unique(), key=lambda unit: (unit == "return", unit))
    sections = [cells[cells.score_name == unit] for unit in units]
    figures = [line for section in sections for line in draw(section, target)]
    tables, last = [matrix(section) for section in sections], details(cells)
    made_by = shlex.join(["python", "experiments/table.py", *sys.argv[1:]])
    rows = commands(cells)
    parts = [f"# {name}", "", *map(markdown, tables), *figures, markdown(last), *rows, *missing]
    save(target, "\n".join([*parts, f"Made by `{made_by}`."]) + "\n", cells)
    comments = [f"% {line}" for line in ["usepackage booktabs", f"made by {made_by}", *rows, *missing]]
    replace_text(target / "table.tex", "\n".join([*comments, "", *map(latex, [*tables, last])]))
    if config.readme:
        show(config.out / "README.md", name, cells, [*map(markdown, tables), *missing])


def draw(cells: pd.DataFrame, target: Path) -> list[str]:
    """Draws `cells`, which have one score name, into `target`; the lines that show them in Markdown."""
    unit, lines = cells.score_name.iloc[0], []
    target.mkdir(parents=True, exist_ok=True)
    for name, figure in table_figures(cells).items():
        stem = f"{dataset_folder(unit)}-{dataset_folder(name)}"
        figure.savefig(target / f"{stem}.png")
        figure.savefig(target / f"{stem}.pdf", metadata={"CreationDate": None})  # the same bytes every time
        lines += [f"![{unit}, {name}]({stem}.png)", ""]
    return lines


def commands(cells: pd.DataFrame) -> list[str]:
    """The command behind every cell, as a block of Markdown."""
    made = dict.fromkeys(f"    {command}" for found in cells.commands for command in found)
    return ["The cells were made by", "", *made, ""]


def save(target: Path, text: str, cells: pd.DataFrame) -> None:
    """`table.md` and `table.csv` in the folder `target`; prints the first."""
    replace_text(target / "table.md", text)
    replace_text(target / "table.csv", records(cells).to_csv(index=False, lineterminator="\n"))
    print(f"{text}\nwritten to {target}")


def write_latency(cells: pd.DataFrame, config: Config) -> None:
    """The table of score beside the time of a decision, and its figure."""
    check_same_data(cells)
    name = config.name or f"planning_{config.env or cells.env.iloc[0]}"
    target = config.out / "tables" / dataset_folder(name)
    grid = details(cells, latency=True)
    save(target, "\n".join([markdown(grid), *commands(cells)]), cells)
    cost_figure(cells, score=grid.table.columns[2]).savefig(target / "cost.png")


def show(readme: Path, name: str, cells: pd.DataFrame, parts: list[str]) -> None:
    """Puts `parts` between the marks of this table in the README, at its end where it has none."""
    facts = (
        f"Preset {', '.join(sorted(cells.preset.unique()))}; {span(cells.updates)} updates; "
        f"{span(cells.seeds)} seeds a cell. Every cell's numbers, cost and command: "
        f"[table.md](tables/{name}/table.md), [table.csv](tables/{name}/table.csv)."
    )
    begin, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    text = readme.read_text() if readme.exists() else ""
    section = "\n".join([begin, f"# {name}", "", facts, "", *parts, end])
    old = re.compile(rf"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text = (
        old.sub(lambda _: section, text, count=1) if old.search(text) else f"{text.rstrip()}\n\n{section}\n"
    )
    replace_text(readme, text.lstrip())
    print(f"shown in {readme}")


def span(values: pd.Series) -> str:
    """ "1,000", or "1,000 to 20,000"."""
    return " to ".join(dict.fromkeys(f"{value:,}" for value in (values.min(), values.max())))


if __name__ == "__main__":
    run_main(main)
