"""One table of all planners and policies played on a dataset, from the runs of plan.py and policies.py.

    python experiments/planning_table.py --env pointmaze-large
    python experiments/planning_table.py --env hopper-medium --compare RUN_A RUN_B

Reads results/plan/<dataset>/*/scores.json and results/policies/<dataset>/*/scores.json and writes
results/tables/planning_<dataset>/table.md, table.csv and cost.png (score against time per decision). Every
row is one method with one setting: last checkpoint, all seeds of all its runs. Runs of the smoke
preset are no results and are refused. --compare prints the difference between two runs instead. Tables
over datasets, in LaTeX too: experiments/table.py.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import table_grids as grids
import tyro
from common import run_main
from scoring import with_interval
from table_cells import Cell, cells_of, episode_scores, interval_of, is_success
from table_text import Grid, markdown
from tables import check_same_data, finished, plain, read, write

from jdp import plotting
from jdp.errors import UserError
from jdp.evaluation import Interval, barnard, bootstrap_interval, difference
from jdp.evaluation.statistics import mean


@dataclass(frozen=True)
class Config:
    """Make the table of all planners and policies on one dataset, or compare two runs."""

    env: str = "hopper-medium"
    """The dataset, as it was given to plan.py and policies.py."""
    compare: tuple[str, str] | None = None
    """Two finished runs on that dataset, by the names of their directories or by path."""
    out: Path = Path("results")
    """Where the runs are; the table goes to tables/ in it."""


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    name = plain(config.env)
    folders = [config.out / experiment / name for experiment in ("plan", "policies")]
    if config.compare is not None:
        print(comparison(*(find(run, folders) for run in config.compare)))
        return
    runs = finished(folders, f"python experiments/plan.py --planner diffuser --env {config.env}")
    check_same_data(runs, " and ".join(map(str, folders)))
    cells = cells_of(runs)
    target = config.out / "tables" / f"planning_{name}"
    write(target, "\n".join([markdown(costs(cells)), *grids.commands(cells)]), grids.records(cells))
    score = f"{cells[0].first['score_name']} (95 %)"
    plotting.cost(points(cells), score=score, title=cells[0].data[0]).savefig(target / "cost.png")


def costs(cells: Sequence[Cell]) -> Grid:
    """Scores beside the time that a decision takes."""
    first = cells[0].first
    head = ["method", "kind", f"{first['score_name']} (95 %)", "seeds", "episodes a seed", "decision, median"]
    head += ["95th percentile", "updates", "preset", "training, all seeds"]
    rows = [
        [
            cell.method,
            cell.kind,
            with_interval(cell.interval),
            " ".join(f"{s:.1f}" for s in cell.seeds),
            f"{cell.first['episodes']}",
            f"{cell.latency('median'):.1f} ms",
            f"{cell.latency('percentile_95'):.1f} ms",
            f"{cell.first['updates']:,}",
            cell.first["preset"],
            f"{cell.minutes:.1f} min, {cell.hardware}",
        ]
        for cell in cells
    ]
    title = f"{first['dataset']}, {first['task']}: last checkpoint"
    timed = "Decisions are timed in one environment, after compilation."
    return Grid(title, head, rows, [*grids.notes(cells), timed], left=2)


def points(cells: Sequence[Cell]) -> dict[str, tuple[float, float, float, float]]:
    """What `plotting.cost` draws."""
    found = {}
    for cell in cells:
        score, low, high = cell.interval
        found[cell.method] = (cell.latency("median") / 1e3, score, low, high)
    return found


def find(name: str, folders: list[Path]) -> dict[str, Any]:
    """The finished run `name`, a directory or the name of one in `folders`."""
    for path in (Path(name), *(folder / name for folder in folders)):
        if (path / "scores.json").exists():
            return read(path / "scores.json")
    known = [path.parent.name for folder in folders for path in sorted(folder.glob("*/scores.json"))]
    near = difflib.get_close_matches(name, known, n=1) or known[-3:]
    hint = f"there is {', '.join(near)}" if near else "there is none; experiments/plan.py makes one"
    raise UserError(f"no finished run {name} in {' or '.join(map(str, folders))}: {hint}")


def comparison(a: dict[str, Any], b: dict[str, Any]) -> str:
    """What two runs say about the difference between their methods; a few lines of text."""
    names = f"{a['path'].name} and {b['path'].name}"
    if a["path"].resolve() == b["path"].resolve():
        raise UserError(f"--compare got {a['path'].name} twice: name two runs")
    if smoke := [run["path"].name for run in (a, b) if run["preset"] == "smoke"]:
        raise UserError(f"{smoke[0]} is of the smoke preset, which makes no results: name a cpu or paper run")
    check_same_data([a, b], names)
    lines = [
        f"{which} {run['path'].name}: {run['method']}, {run['score_name']} "
        f"{with_interval(interval_of(run))} (seeds {' '.join(f'{s:.1f}' for s in run['seeds'])})"
        for which, run in (("A", a), ("B", b))
    ]
    seeds = f"Welch's t over {len(a['seeds'])} and {len(b['seeds'])} seeds"
    lines.append(f"A - B: {verdict(difference(a['seeds'], b['seeds']))} ({seeds})")
    if is_success(a):
        p = barnard(a["success"], b["success"])
        lines.append(f"A and B succeed equally often: p = {p:.2g} (Barnard's exact test over all episodes)")
    if a["episodes"] == b["episodes"]:
        found = verdict(over_episodes(a, b))
        lines.append(f"A - B: {found} (bootstrap over {a['episodes']} episodes within each of these seeds)")
    else:
        lines.append("no bootstrap over episodes: the runs have different numbers of them")
    return "\n".join(lines)


def verdict(found: Interval) -> str:
    if not np.isfinite([found.low, found.high]).all():
        return f"{found.estimate:.1f}, no interval: each run needs two values or more"
    zero = "includes 0" if found.low <= 0 <= found.high else "does not include 0"
    return f"{with_interval(found)}, {found.high - found.low:.1f} wide, {zero}"


def over_episodes(a: dict[str, Any], b: dict[str, Any]) -> Interval:
    """The difference of mean scores when every seed had played other episodes; the seeds stay."""
    count = len(a["seeds"])
    scores = np.concatenate([episode_scores(a), episode_scores(b)]).T  # [episodes, seeds of both]
    return bootstrap_interval(scores, statistic=lambda seeds: mean(seeds[:count]) - mean(seeds[count:]))


if __name__ == "__main__":
    run_main(main)
