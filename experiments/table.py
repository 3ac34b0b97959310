"""One table of all agents trained on a dataset, from the runs of offline_rl.py.

    python experiments/table.py --env hopper-medium

Reads results/offline_rl/<dataset>/*/scores.json and writes results/tables/offline_rl_<dataset>/table.md and
table.csv. Every row is the newest finished run of one agent: last checkpoint, all seeds. Runs of the smoke
preset are no results and are refused.
"""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import run_main
from job import with_interval

from jdp.agents import AGENTS, MODEL_BASED
from jdp.errors import UserError
from jdp.training.runs import replace_text


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
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", config.env).strip("-")
    folder = config.out / "offline_rl" / name
    runs = [read(path) for path in sorted(folder.glob("*/scores.json"))]
    real = [run for run in runs if run["preset"] != "smoke"]
    if smoke := len(runs) - len(real):
        print(f"refused: {smoke} runs of the smoke preset")
    if not real:
        raise UserError(
            f"{folder} holds no finished run of the cpu or paper preset: "
            f"python experiments/offline_rl.py --agent td3_bc --env {config.env}"
        )
    datasets = {(run["dataset"], run["sha256"]) for run in real}
    if len(datasets) > 1:
        raise UserError(f"{folder} holds runs on different data ({sorted(datasets)}): use an --out for each")
    newest = {(run["agent"], model_of(run), run["preset"]): run for run in real}  # sorted by time
    order = list(AGENTS)
    rows = [row(newest[key]) for key in sorted(newest, key=lambda key: (order.index(key[0]), key[1:]))]
    target = config.out / "tables" / f"offline_rl_{name}"
    text = markdown(rows, next(iter(newest.values())))
    replace_text(target / "table.md", text)
    with (target / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{text}\nwritten to {target}")


def read(path: Path) -> dict[str, Any]:
    """A finished run: its scores and what they depend on."""
    scores, written = json.loads(path.read_text()), json.loads((path.parent / "config.json").read_text())
    keep = ("sha256", "commit", "devices", "cores", "config")
    command = re.sub(r" --(out|resume)[ =]\S+| --resume\b", "", written.get("command", "(not recorded)"))
    return scores | {k: written[k] for k in keep} | {"command": command}


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


def markdown(rows: list[dict[str, Any]], run: dict[str, Any]) -> str:
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
        f"{', '.join(sorted(set(run['devices'])))}. The rows were made by",
        "",
        *(f"    {r['command']}" for r in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_main(main)
