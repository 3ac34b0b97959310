"""One table of all planners and policies played on a dataset, from the runs of plan.py and policies.py.

    python experiments/planning_table.py --env pointmaze-large
    python experiments/planning_table.py --env hopper-medium --compare RUN_A RUN_B

Reads results/plan/<dataset>/*/scores.json and results/policies/<dataset>/*/scores.json and writes
results/tables/planning_<dataset>/table.md, table.csv and cost.png (score against time per decision). Every
row is the newest finished run of one method and preset: last checkpoint, all seeds. Runs of the smoke
preset are no results and are refused. --compare prints the difference between two runs instead.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import run_main
from job import with_interval
from tables import check_same_data, ending, finished, plain, read, write

from jdp import plotting
from jdp.errors import UserError
from jdp.evaluation import Interval, bootstrap_interval, difference, normalised_score, success_interval
from jdp.planners import PLANNERS
from jdp.policies import POLICIES


@dataclass(frozen=True)
class Config:
    """Make the table of all planners and policies on one dataset, or compare two runs."""

    env: str = "hopper-medium"
    """The dataset, as it was given to plan.py and policies.py."""
    compare: tuple[str, str] | None = None
    """Two finished runs on that dataset, by the names of their directories or by path."""
    out: Path = Path("results")
    """Where the runs are; the table goes to tables/ in it."""


HEAD = [
    *("method", "kind", "score", "low", "high", "seeds", "episodes", "median_ms", "percentile_95_ms"),
    *("updates", "preset", "minutes", "cores", "device", "command"),
]
ORDER = [*PLANNERS, *POLICIES]


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    name = plain(config.env)
    folders = [config.out / experiment / name for experiment in ("plan", "policies")]
    if config.compare is not None:
        print(comparison(*(find(run, folders) for run in config.compare)))
        return
    runs = finished(folders, f"python experiments/plan.py --planner diffuser --env {config.env}")
    newest = {(run["method"], run["preset"]): run for run in runs}  # of a method sorted by time
    chosen = [newest[key] for key in sorted(newest, key=lambda key: (ORDER.index(key[0]), key[1]))]
    rows = [row(run) for run in chosen]
    target = config.out / "tables" / f"planning_{name}"
    write(target, markdown(rows, chosen), HEAD, rows)
    plotting.cost(
        points(chosen), score=f"{chosen[0]['score_name']} (95 %)", title=chosen[0]["dataset"]
    ).savefig(target / "cost.png")


def row(run: dict[str, Any]) -> dict[str, Any]:
    mean, low, high = interval_of(run)
    return {
        "method": run["method"],
        "kind": "planner" if run["method"] in PLANNERS else "policy",
        "score": mean,
        "low": low,
        "high": high,
        "seeds": " ".join(f"{s:.1f}" for s in run["seeds"]),
        "episodes": run["episodes"],
        "median_ms": 1e3 * run["latency"]["median"],
        "percentile_95_ms": 1e3 * run["latency"]["percentile_95"],
        "updates": run["updates"],
        "preset": run["preset"],
        "minutes": round(sum(run["minutes"].values()), 1),
        "cores": run["cores"],
        "device": run["devices"][0].partition(": ")[2],
        "command": run["command"],
    }


def is_success(run: dict[str, Any]) -> bool:
    return run["score_name"] == "success %"


def interval_of(run: dict[str, Any]) -> Any:
    """Over all episodes where the score is a share of them, else over the seeds."""
    return success_interval(run["success"]) if is_success(run) else run["interval"]


def markdown(rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> str:
    run = runs[0]
    known = "" if run["behaviour"] is None else f"; behaviour policy {run['behaviour']:.1f}"
    lines = [
        f"{run['dataset']}, {run['task']}: last checkpoint{known}",
        "",
        f"| method | kind | {run['score_name']} (95 %) | seeds | episodes a seed | decision, median | "
        "95th percentile | updates | preset | training, all seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        score = with_interval((r["score"], r["low"], r["high"]))
        where = f"{r['cores']} cores" if r["device"] == "cpu" else r["device"]
        lines.append(
            f"| {r['method']} | {r['kind']} | {score} | {r['seeds']} | {r['episodes']} | "
            f"{r['median_ms']:.1f} ms | {r['percentile_95_ms']:.1f} ms | {r['updates']:,} | {r['preset']} | "
            f"{r['minutes']:.1f} min, {where} |"
        )
    lines += [
        "",
        f"Intervals: {'Clopper-Pearson over all episodes' if is_success(run) else 'Student over the seeds'}. "
        "Decisions are timed in one environment, after compilation.",
        *ending(runs, rows),
    ]
    return "\n".join(lines) + "\n"


def points(runs: list[dict[str, Any]]) -> dict[str, tuple[float, float, float, float]]:
    """What `plotting.cost` draws; a method with two presets is named with them."""
    methods = [run["method"] for run in runs]
    found = {}
    for run in runs:
        name = run["method"] if methods.count(run["method"]) == 1 else f"{run['method']}, {run['preset']}"
        mean, low, high = (float("nan") if v is None else v for v in interval_of(run))
        found[name] = (run["latency"]["median"], mean, low, high)
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
    return bootstrap_interval(scores, statistic=lambda x: float(x[:, :count].mean() - x[:, count:].mean()))


def episode_scores(run: dict[str, Any]) -> np.ndarray:
    """`[seeds, episodes]`, what the means of are the run's scores."""
    if is_success(run):
        return 100.0 * np.asarray(run["success"], np.float64)
    scale = run["spec"].get("score_range")
    returns = np.asarray(run["returns"], np.float64)
    return returns if scale is None else normalised_score(returns, tuple(scale))


if __name__ == "__main__":
    run_main(main)
