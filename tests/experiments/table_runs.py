"""Finished runs made up for the tests of table.py, and how its tables are read."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from scripts import EXPERIMENTS

sys.path.insert(0, str(EXPERIMENTS))
import table

HOPPER, MAZE = "hopper-medium (bundled, d4rl-style)", "pointmaze-umaze (bundled, d4rl-style)"
SCALE = (0.0, 1000.0)  # so that a return of 10 is a score of 1


def make_run(out: Path, experiment: str, dataset: str, method: str, seeds, *, name: str = "a", **changes):
    """A finished run whose seeds have the means `seeds` (normalised, or in percent of ten episodes)."""
    seed, maze = changes.pop("seed", 0), dataset == MAZE
    config = {"env": dataset.partition(" ")[0], "preset": "cpu", "source": "bundled", "seed": seed}
    config |= {"seeds": len(seeds), "updates": 100, "settings": {"alpha": 2.5, "tau": 0.005}}
    config |= {"evaluation": {"episodes": 10}} | changes.pop("config", {})
    word = {"offline_rl": "agent", "plan": "method", "policies": "method"}[experiment]
    success = [[int(i < s / 10) for i in range(10)] for s in seeds]
    found = {
        **{"dataset": dataset, "task": "Hopper-v5", word: method, "preset": config["preset"], "updates": 100},
        **{"episodes": 10, "score_name": "success %" if maze else "normalised score", "seeds": seeds},
        **{
            "returns": [[10.0 * s] * 10 for s in seeds],
            "success": success,
            "behaviour": None if maze else 48.2,
        },
        **{"minutes": {"agent": 1.5}, "latency": {"median": 0.001, "percentile_95": 0.002}},
    } | changes.pop("scores", {})
    facts = {
        **{"config": config, "sha256": "ab" * 32, "commit": "c0ffee", "devices": ["cpu: cpu"], "cores": 2},
        **{"spec": {"score_range": None if maze else SCALE}},
        "command": f"python experiments/{experiment}.py --x {method} --seed {seed} --out {out}",
    } | changes
    folder = out / experiment / config["env"] / f"20260101-{name}-{method}"
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(found))
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def tables(out: Path, *arguments: str, name: str = "all") -> tuple[str, list[dict[str, str]]]:
    """`table.md` and the rows of `table.csv`; in this process, without its figures."""
    before = sys.argv
    sys.argv = ["experiments/table.py", "--out", str(out), *arguments]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table, "draw", lambda section, target: [])
            table.main()
    finally:
        sys.argv = before
    folder = out / "tables" / name
    return (folder / "table.md").read_text(), list(csv.DictReader((folder / "table.csv").open(newline="")))


def line(text: str, start: str) -> list[str]:
    (found,) = [row for row in rows_of(text.split("## Cells")[0]) if row[0] == start]
    return found


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of the tables in `text`, heads and all."""
    rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in text.splitlines() if row.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def shown(found) -> str:
    return f"{found.estimate:.1f} [{found.low:.1f}, {found.high:.1f}]"
