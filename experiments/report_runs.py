"""Run directories as the page of report.py shows them: what cannot be read is said, never raised."""

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from report_curves import Row, curves, logged, minutes, number

from jdp.agents import MODEL_BASED

LENGTH = 200_000  # characters, at most, of a report
UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


def describe(folder: Path) -> Row:
    """Everything the page says of the run in `folder` (`<experiment>/<dataset>/<run>`) but its figures.

    Its `status` is finished, unfinished, or broken where a file could not be read: then `error` names it.
    """
    experiment, dataset, name = folder.parts[-3:]
    run: Row = {
        "id": f"{experiment}/{dataset}/{name}",
        "path": str(folder),
        "experiment": experiment,
        "dataset": dataset,
        "status": "unfinished",
        "error": None,
        "config": {},
        "facts": {},
        "curves": [],
        "results": [{"arm": None, "method": name}],
    }
    for file, part in PARTS.items():
        try:
            run |= part(folder / file, run)
        except UNREADABLE as error:
            reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            run["error"] = run["error"] or f"{file}: {reason}".splitlines()[0]
    if run["error"]:
        run["status"] = "broken"
    return run


def started(path: Path, run: Row) -> Row:
    """When the run began: its name says it, else the clock of its directory."""
    found = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)\d\d", path.name)
    if found:
        return {"started": "{}-{}-{} {}:{}".format(*found.groups())}
    return {"started": time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))}


def config(path: Path, run: Row) -> Row:
    """What was asked for, on which data, with which code and devices."""
    if not path.exists():
        raise ValueError("there is none, so this is no run, or one that was stopped at its very start")
    written = json.loads(path.read_text())
    settings, spec = dict(written["config"]), dict(written.get("spec") or {})
    keep = ("sha256", "hash", "commit", "python", "devices", "cores", "packages")
    return {
        "config": settings,
        "preset": text(settings.get("preset")),
        "dataset": str(written.get("dataset", run["dataset"])),
        "command": text(written.get("command")),
        "commit": text(written.get("commit")),
        "facts": {key: written[key] for key in keep if key in written},
        "spec": spec,
        "updates": number(settings.get("updates")),
        "score_name": "return" if spec.get("score_range") is None else "normalised score",
        "results": [{"arm": arm, "method": method} for arm, method in methods(settings, run["experiment"])],
    }


def methods(settings: Mapping[str, Any], experiment: str) -> list[tuple[str | None, str]]:
    """`(arm, method)` of everything that a run scores; the arm is None where there is but one."""
    name = str(settings.get("planner") or settings.get("policy") or settings.get("agent") or experiment)
    if settings.get("agent") in MODEL_BASED and settings.get("world_model"):
        name = f"{name} ({str(settings['world_model']).replace('_', ' ')})"
    arms = settings.get("arms")
    return [(str(arm), f"{name}, {arm}") for arm in arms] if arms else [(None, name)]


def metrics(path: Path, run: Row) -> Row:
    """Curves, how far the run is, and the minutes it has trained."""
    records = list(logged(path))
    if not records:
        return {"progress": "nothing logged yet"}
    arms = {result["arm"] for result in run["results"]} - {None}
    return {
        "progress": f"last logged: {records[-1]['phase']}, step {int(records[-1]['step']):,}",
        "curves": [line | {"arm": line["phase"] in arms} for line in curves(records, run.get("spec", {}))],
        "results": [r | {"minutes": minutes(records, arms - {r["arm"]})} for r in run["results"]],
    }


def scores(path: Path, run: Row) -> Row:
    """What a finished run found."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    results = [result | score(found, result["arm"]) for result in run["results"]]
    if found.get("minutes") is not None and len(results) == 1:
        spent = sum(float(v) for v in found["minutes"].values())
        results = [result | {"minutes": spent} for result in results]
    return {
        "status": "finished",
        "results": results,
        "task": text(found.get("task")),
        "dataset": str(found.get("dataset", run["dataset"])),
        "preset": text(found.get("preset", run.get("preset"))),
        "score_name": str(found.get("score_name", run.get("score_name"))),
        "episodes": number(found.get("episodes")),
        "updates": number(found.get("updates", run.get("updates"))),
        "behaviour": number(found.get("behaviour")),
        "latency": number((found.get("latency") or {}).get("median")),
    }


def score(found: Mapping[str, Any], arm: str | None) -> Row:
    """The seeds and `[mean, low, high]` of one arm; nothing of experiments that have only a report."""
    part = found if arm is None else found["arms"][arm]
    if "interval" not in part:
        return {}
    return {
        "seeds": [float(s) for s in part["seeds"]],
        "score": [number(part["interval"][i]) for i in range(3)],
    }


def report(path: Path, run: Row) -> Row:
    return {"report": path.read_text(errors="replace")[:LENGTH]} if path.exists() else {}


def text(value: Any) -> str | None:
    return None if value is None else str(value)


# In this order: a later part stands on what the earlier ones found.
PARTS: dict[str, Callable[[Path, Row], Row]] = {
    "": started,
    "config.json": config,
    "metrics.jsonl": metrics,
    "scores.json": scores,
    "report.txt": report,
}
