"""One run directory as rows of the table of all runs (`jdp.runs.frame`)."""

import json
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from jdp.evaluation.statistics import interval, success_interval
from jdp.runs.logs import UNREADABLE, logged, training_minutes
from jdp.types import Json

Row: TypeAlias = Json  # values as JSON has them
KINDS = {"offline_rl": "agent", "plan": "planner", "policies": "policy", "pgd_d4rl": "arm"}


def read_run(path: Path, out: Path) -> list[Row]:
    """A row for everything that the run at `path` below `out` scores, without the columns that it has not.

    What cannot be read makes the row `broken` and is said in its `error`, never raised.
    """
    rows = [_placed(path, out)]
    for file, part in (("config.json", _asked), ("scores.json", _scored), ("metrics.jsonl", _logged)):
        try:
            rows = [found for row in rows for found in part(row, path / file)]
        except UNREADABLE as error:
            text = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            said = f"{file}: {text}".splitlines()[0]
            rows = [row | {"status": "broken", "error": row["error"] or said} for row in rows]
    return rows


def _placed(path: Path, out: Path) -> Row:
    """What the place of a run tells."""
    parts = path.relative_to(out).parts
    if named := re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)\d\d", path.name):
        started = "{}-{}-{} {}:{}".format(*named.groups())
    else:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    return {
        "id": "/".join(parts),
        "path": str(path),
        "experiment": parts[max(len(parts) - 3, 0)] if len(parts) > 1 else "",
        "dataset": parts[-2] if len(parts) > 2 else "",
        "method": path.name,
        "arm": None,
        "status": "unfinished",
        "error": None,
        "started": started,
        "minutes": None,
        "sweep": None,
        "config": {},
        "facts": {},
    }


def _asked(row: Row, path: Path) -> list[Row]:
    """What was asked for, on which data, with which code and devices; a row for every arm."""
    if not path.exists():
        raise ValueError("there is none, so this is no run, or one that was stopped at its very start")
    written = json.loads(path.read_text())
    config, spec, command = dict(written["config"]), dict(written.get("spec") or {}), written.get("command")
    script = re.search(r"(\w+)\.py", str(command))
    experiment = row["experiment"] or (script[1] if script else "")
    scale = spec.get("score_range")
    row = row | {
        "experiment": experiment,
        "kind": KINDS.get(experiment, experiment),
        "dataset": str(written.get("dataset", row["dataset"])),
        "env": config.get("env"),
        "sha256": written.get("sha256"),
        "task": spec.get("env_id"),
        "preset": config.get("preset"),
        "seed": config.get("seed"),
        "seeds": config.get("seeds"),
        "updates": config.get("updates"),
        "episodes": dict(config.get("evaluation") or {}).get("episodes"),
        "score_name": "return" if scale is None else "normalised score",
        "score_range": scale,
        "hardware": _hardware(written.get("devices"), written.get("cores")),
        "command": without_place(str(command or "")),
        "commit": written.get("commit"),
        "config": config,
        "facts": {k: written[k] for k in ("hash", "python", "devices", "cores", "packages") if k in written},
    }
    words = ("method", "planner", "agent", "policy")  # what goes on from a policy names that too
    method = _with_model(next((str(config[w]) for w in words if config.get(w)), experiment), config)
    arms = [str(arm) for arm in config.get("arms") or ()]
    named = [{"arm": arm, "method": f"{method} ({arm} arm)", "id": f"{row['id']}~{arm}"} for arm in arms]
    return [row | arm for arm in named or [{"method": method}]]


def _with_model(method: str, config: Json) -> str:
    """A model-based agent's name with its world model, which is half of the method."""
    model_based = "rollouts" in dict(config.get("settings") or {}) and config.get("world_model")
    return f"{method} ({str(config['world_model']).replace('_', ' ')})" if model_based else method


def _hardware(devices: Sequence[str] | None, cores: int | None) -> str | None:
    """ "2 CPU cores", or "8 x NVIDIA H200"."""
    if not devices:
        return None
    platform, _, name = str(devices[0]).partition(": ")
    return f"{cores} CPU cores" if platform == "cpu" else f"{len(devices)} x {name}"


def _scored(row: Row, path: Path) -> list[Row]:
    """What a finished run found."""
    if not path.exists():
        return [row]
    found = json.loads(path.read_text())
    part, latency = found if row["arm"] is None else found["arms"][row["arm"]], found.get("latency") or {}
    keep = ("dataset", "task", "preset", "updates", "episodes", "score_name", "behaviour", "steps")
    row = row | {key: found[key] for key in keep if found.get(key) is not None}
    row |= {"latency": latency.get("median"), "latency_95": latency.get("percentile_95")}
    row |= {"latency_99": latency.get("percentile_99"), "at_rates": found.get("at_rates")}
    told = (found.get("checks") or {}).get("out_of_distribution") or {}
    if apart := told.get("data" if row["arm"] == "dataset" else row["arm"]):
        row["auroc"] = apart["auroc"][0]
    if base := found.get("base"):
        row["before"] = sum(map(float, base["seeds"])) / len(base["seeds"])
    if row["arm"] is None and (method := found.get("agent") or found.get("method")):
        row["method"] = _with_model(str(method), row["config"])
    if spent := found.get("minutes"):  # of an arm its own, and those of the models that all arms share
        own = [m for phase, m in spent.items() if row["arm"] in (None, phase) or phase not in found["arms"]]
        row["minutes"] = float(sum(own))
    elif (seconds := found.get("seconds_of_last_process")) is not None:
        row["minutes"] = float(seconds) / 60
    if "seeds" in part:  # an experiment may have a report alone
        scores, success = [float(score) for score in part["seeds"]], part.get("success")
        by_success = row["score_name"] == "success %"
        score, low, high = success_interval(success) if by_success else interval(scores)
        row |= {"scores": scores, "seeds": len(scores), "score": score, "low": low, "high": high}
        row |= {"returns": part.get("returns"), "success": success}
    return [row | {"status": "finished"}]


def _logged(row: Row, path: Path) -> list[Row]:
    """How far an unfinished run is, and the minutes that it has trained."""
    if row["status"] == "unfinished":
        last = None
        for last in logged(path):  # noqa: B007
            pass
        row["progress"] = (
            f"last logged: {last['phase']}, step {last['step']:,}" if last else "nothing logged yet"
        )
    if row["minutes"] is None:
        others = {str(arm) for arm in row["config"].get("arms") or ()} - {row["arm"]}
        row["minutes"] = training_minutes(path.parent, others)
    return [row]


def without_place(command: str) -> str:
    """A recorded command as it can be given again: without where it wrote, and whether it went on."""
    words = shlex.split(command)
    kept: list[str] = []
    skip = False
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else "--"
        name = word.partition("=")[0]
        if skip or name in ("--out", "--resume"):
            skip = not skip and word == name and not following.startswith("--")
            continue
        kept.append(re.sub(r"^\S*/(experiments/\w+\.py)$", r"\1", word))
    return shlex.join(kept) if kept else "(not recorded)"
