"""The tables and figures of all finished runs, of those of one sweep, or of those on one dataset.

    python experiments/table.py
    python experiments/table.py --sweep NAME
    python experiments/table.py --env pointmaze-large --latency
    python experiments/table.py --compare RUN_A RUN_B

Writes results/tables/<name>/: table.md, table.tex, table.csv (one row a cell, with its command) and the
figures as PNG and PDF. Runs of one method and setting that differ only in seed are one cell; scores are of
last checkpoints. Runs of the smoke preset are no results and are refused. `--latency` makes the table of all
planners and policies on one dataset, score beside the time of a decision, with cost.png; `--compare` prints
the difference between two runs.
"""

import difflib
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from command_line import parse, run_main
from table_figures import draw

from jdp import plotting
from jdp.errors import UserError
from jdp.evaluation import Interval, barnard, bootstrap_interval, difference
from jdp.evaluation.statistics import mean
from jdp.evaluation.summary import with_interval
from jdp.runs.cells import drop_repeated, episode_scores, is_success, pool_seeds
from jdp.runs.directories import dataset_folder, replace_text
from jdp.runs.frame import read_runs
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
    runs = on_dataset(read_runs(config.out, config.sweep), config)
    if config.compare is not None:
        print(comparison(*(find(name, runs) for name in config.compare)))
        return
    missing = unfinished_lines(runs) if config.sweep else []
    runs = results_of(runs, config)
    if repeated := len(runs) - len(drop_repeated(runs)):
        print(f"left out: {repeated} run{'s' * (repeated > 1)} that another of the same seed repeats")
    cells = pool_seeds(runs)
    if config.latency:
        write_latency(cells, config)
    else:
        write(cells, missing, config)


def on_dataset(runs: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The runs on the dataset that is asked for, by its name as it was given, its folder's or its own."""
    if config.env is None:
        return runs
    folder = runs.path.map(lambda path: Path(str(path)).parent.name)
    own = runs.dataset.map(lambda name: str(name).partition(" ")[0])
    found = runs[(runs.env == config.env) | (folder == dataset_folder(config.env)) | (own == config.env)]
    if found.empty:
        known = ", ".join(sorted(runs.env.dropna().unique()))
        hint = f"there is {known}" if known else command_for(config)
        raise UserError(f"no run on {config.env} in {config.out}: {hint}")
    return found


def command_for(config: Config) -> str:
    """A command that makes what is missing."""
    if config.sweep is not None:
        return f"go on with python experiments/sweep.py GRID for {config.sweep}"
    method = "plan.py --planner diffuser" if config.latency else "offline_rl.py --agent td3_bc"
    return f"python experiments/{method} --env {config.env or 'hopper-medium'}"


def unfinished_lines(runs: pd.DataFrame) -> list[str]:
    """A line for every cell of a sweep that is not in its table."""
    left = runs[~runs.status.isin(["finished", "broken"])]
    said = [f" ({error})" if error else "" for error in left.error]
    lines = [
        f"Not in the table: {r.cell}, {r.status}{s}." for r, s in zip(left.itertuples(), said, strict=True)
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


def check_same_data(runs: pd.DataFrame) -> None:
    """Raises `UserError` unless all `runs` are on the same data and task: other scores do not compare."""
    data = sorted({(str(r.dataset), str(r.task), str(r.sha256)[:16]) for r in runs.itertuples()})
    if len(data) > 1:
        raise UserError(f"runs on different data ({data}): choose one with --env, or use an --out for each")


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
    target = (
        config.out / "tables" / dataset_folder(config.name or f"planning_{config.env or cells.env.iloc[0]}")
    )
    grid = details(cells, latency=True)
    save(target, "\n".join([markdown(grid), *commands(cells)]), cells)
    columns = cells[["label", "latency", "score", "low", "high"]]
    points = {label: tuple(map(float, values)) for label, *values in columns.itertuples(index=False)}
    figure = plotting.cost(points, score=grid.table.columns[2], title=cells.dataset.iloc[0])  # type: ignore[arg-type]
    figure.savefig(target / "cost.png")


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


def span(values: Iterable[int]) -> str:
    """ "1,000", or "1,000 to 20,000"."""
    found = sorted(set(values))
    return " to ".join(f"{value:,}" for value in dict.fromkeys((found[0], found[-1])))


def find(name: str, runs: pd.DataFrame) -> pd.Series:
    """The finished run `name`: a directory, its name, or NAME~arm.

    Raises:
        UserError: if there is none, or several.
    """
    runs = runs[runs.scores.notna()]
    path, _, arm = name.partition("~")
    places = map(Path, runs.path)
    here = np.array([p.name == path or p.resolve() == Path(path).resolve() for p in places], bool)
    found = runs[here & (runs.arm.fillna("") == arm if arm else True)]
    if found.empty and (Path(path) / "scores.json").exists():
        return find(Path(path).name + name[len(path) :], read_runs(Path(path).parents[2]))
    known = [run.rpartition("/")[2] for run in (runs if found.empty else found).id]
    if len(found) != 1:
        near = (difflib.get_close_matches(name, known, n=1) or known[-3:]) if found.empty else list(found.id)
        hint = f"there is {', '.join(near)}" if near else "there is none; experiments/plan.py makes one"
        raise UserError(f"{'no' if found.empty else 'more than one'} finished run {name}: {hint}")
    return found.iloc[0]


def comparison(a: pd.Series, b: pd.Series) -> str:
    """What two runs say about the difference between their methods; a few lines of text."""
    names = [run.id.rpartition("/")[2] for run in (a, b)]
    if a.id == b.id and Path(a.path).resolve() == Path(b.path).resolve():
        raise UserError(f"--compare got {names[0]} twice: name two runs")
    if smoke := [name for name, run in zip(names, (a, b), strict=True) if run.preset == "smoke"]:
        raise UserError(f"{smoke[0]} is of the smoke preset, which makes no results: name a cpu or paper run")
    check_same_data(pd.DataFrame([a, b]))
    lines = [
        f"{which} {name}: {run.method}, {run.score_name} {with_interval(run.score, run.low, run.high)} "
        f"(seeds {' '.join(f'{s:.1f}' for s in run.scores)})"
        for which, name, run in zip("AB", names, (a, b), strict=True)
    ]
    seeds = f"Welch's t over {len(a.scores)} and {len(b.scores)} seeds"
    lines.append(f"A - B: {verdict(difference(a.scores, b.scores))} ({seeds})")
    if is_success(a):
        p = barnard(a.success, b.success)
        lines.append(f"A and B succeed equally often: p = {p:.2g} (Barnard's exact test over all episodes)")
    if a.episodes == b.episodes:
        scores = np.concatenate([episode_scores(a), episode_scores(b)]).T  # [episodes, seeds of both]
        count = len(a.scores)
        # Every seed might have played other episodes; the seeds stay.
        found = bootstrap_interval(scores, statistic=lambda s: mean(s[:count]) - mean(s[count:]))
        lines.append(
            f"A - B: {verdict(found)} (bootstrap over {a.episodes} episodes within each of these seeds)"
        )
    else:
        lines.append("no bootstrap over episodes: the runs have different numbers of them")
    return "\n".join(lines)


def verdict(found: Interval) -> str:
    if not np.isfinite([found.low, found.high]).all():
        return f"{found.estimate:.1f}, no interval: each run needs two values or more"
    zero = "includes 0" if found.low <= 0 <= found.high else "does not include 0"
    return f"{with_interval(*found)}, {found.high - found.low:.1f} wide, {zero}"


if __name__ == "__main__":
    run_main(main)
