"""What a running cell can be seen to do: its run directory, how far it is, how it ended."""

import json
import re
from pathlib import Path
from typing import Any

TRAINED = ("agent", "planner", "policy")  # the phases of a run's updates, where it has no arms


def run_of(stem: Path) -> Path | None:
    """The run directory that a cell's script named last, if it named one.

    Scripts print `run        <path>` when they open one, and `finished   <path>` of one that `--resume auto`
    finds done. A path counts if it holds a config.json.
    """
    try:
        text = stem.with_name(f"{stem.name}.out").read_text(errors="replace")
    except OSError:
        return None
    for line in reversed(re.split(r"[\r\n]+", text)):
        named = re.match(r"(?:run|finished)\s+(.+)", line)
        if named and (Path(named[1]) / "config.json").is_file():
            return Path(named[1])
    return None


def finished(run: str | None) -> bool:
    """Whether nothing is known against a finished cell: its run, if it named one, has its scores."""
    return run is None or (Path(run) / "scores.json").exists()


def last_of(run: Path | None) -> tuple[str, int] | None:
    """Phase and step of the last line of a run's metrics; None where it has logged nothing yet."""
    try:
        with (Path(run or "nowhere") / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 2**16))
            record = json.loads(file.read().splitlines()[-1])
        return record["phase"], record["step"]
    except (OSError, ValueError, KeyError, IndexError):
        return None


def share_of(run: Path | None) -> float:
    """The share of its agents' updates that a run has logged; 0 in other phases."""
    last = last_of(run)
    if run is None or last is None:
        return 0.0
    phase = last[0].removesuffix("/evaluation")
    if phase == "evaluation":
        return 0.99
    try:
        config = json.loads((run / "config.json").read_text())["config"]
        order = config.get("arms") or [name for name in TRAINED if name == phase]
        return min(0.99, (order.index(phase) + last[1] / config["updates"]) / len(order))
    except (OSError, ValueError, KeyError):
        return 0.0


def outcome_of(stem: Path, attempt: str) -> dict[str, Any] | None:
    """How this attempt ended, as `RunCell` wrote it; None before."""
    try:
        found = json.loads(stem.with_name(f"{stem.name}.json").read_text())
    except (OSError, ValueError):
        return None
    return found if found["attempt"] == attempt else None
