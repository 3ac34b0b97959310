"""One table of all agents trained on a dataset, from the runs of offline_rl.py.

    python experiments/table.py --env hopper-medium

Reads results/offline_rl/<dataset>/*/scores.json and writes results/tables/offline_rl_<dataset>/table.md and
table.csv. Every row is the newest finished run of one agent: last checkpoint, all seeds. Runs of the smoke
preset are no results and are refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import run_main
from job import with_interval
from tables import ending, finished, plain, write

from jdp.agents import AGENTS, MODEL_BASED


@dataclass(frozen=True)
class Config:
    """Make the table of all agents on one dataset."""

    env: str = "hopper-medium"
    """The dataset, as it was given to offline_rl.py."""
    out: Path = Path("results")
    """Where the runs are; the table goes to tables/ in it."""


HEAD = ["agent", "model", "score", "low", "high", "seeds", "updates", "minutes", "preset", "cores", "command"]


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    name = plain(config.env)
    runs = finished(
        [config.out / "offline_rl" / name],
        f"python experiments/offline_rl.py --agent td3_bc --env {config.env}",
    )
    newest = {(run["agent"], model_of(run), run["preset"]): run for run in runs}  # sorted by time
    order = list(AGENTS)
    rows = [row(newest[key]) for key in sorted(newest, key=lambda key: (order.index(key[0]), key[1:]))]
    text = markdown(rows, list(newest.values()))
    write(config.out / "tables" / f"offline_rl_{name}", text, HEAD, rows)


def model_of(run: dict[str, Any]) -> str:
    """The world model of a model-based agent's run, else nothing."""
    return run["config"].get("world_model", "ensemble") if run["agent"] in MODEL_BASED else ""


def row(run: dict[str, Any]) -> dict[str, Any]:
    mean, low, high = run["interval"]
    return {
        "agent": run["agent"],
        "model": model_of(run),
        "score": mean,
        "low": low,
        "high": high,
        "seeds": " ".join(f"{s:.1f}" for s in run["seeds"]),
        "updates": run["updates"],
        "minutes": round(sum(run["minutes"].values()), 1),
        "preset": run["preset"],
        "cores": run["cores"],
        "command": run["command"],
    }


def markdown(rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> str:
    run = runs[0]
    lines = [
        f"{run['dataset']}, {run['task']}: last checkpoint, {run['episodes']} episodes a seed; "
        f"behaviour policy {run['behaviour']:.1f}",
        "",
        f"| agent | {run['score_name']} (95 %) | seeds | updates | preset | training, all seeds |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        score = with_interval((r["score"], r["low"], r["high"]))
        name = r["agent"] + (f" ({r['model'].replace('_', ' ')})" if r["model"] else "")
        cost = f"{r['minutes']:.1f} min, {r['cores']} cores"
        lines.append(f"| {name} | {score} | {r['seeds']} | {r['updates']:,} | {r['preset']} | {cost} |")
    lines += [
        "",
        "In brackets the world model of a model-based agent. Intervals: Student's t over the seeds.",
        *ending(runs, rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_main(main)
