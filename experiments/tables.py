"""Tables of runs: reading finished runs, refusing smoke and mixed data, writing the files."""

import csv
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jdp.errors import UserError
from jdp.runs.directories import replace_text

EXPERIMENTS = ("offline_rl", "plan", "policies", "pgd_d4rl")


def plain(env: str) -> str:
    """The folder's name of a dataset, as runs are filed under it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", env).strip("-")


def read(path: Path) -> dict[str, Any]:
    """A finished run's `scores.json` and what it depends on, by the same names for all experiments.

    Raises:
        UserError: if it or the `config.json` beside it is missing or cut short.
    """
    try:
        scores, written = json.loads(path.read_text()), json.loads((path.parent / "config.json").read_text())
        keep = ("sha256", "commit", "devices", "cores", "config")
        facts = {k: written[k] for k in keep} | {"spec": written.get("spec", {}), "path": path.parent}
        return defaults(scores, facts) | facts | {"command": without_place(written.get("command", ""))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path.parent} is no whole finished run ({reason}): move it away") from error


def defaults(scores: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """`scores`, with what pgd_d4rl.py leaves to the configuration, and minutes of training."""
    config, scale = facts["config"], facts["spec"].get("score_range")
    known = {
        "preset": config["preset"],
        "updates": config["updates"],
        "episodes": config["evaluation"]["episodes"],
        "score_name": "return" if scale is None else "normalised score",
    }
    if "minutes" in scores:
        known["training"] = sum(scores["minutes"].values())
    else:
        known["training"] = scores["seconds_of_last_process"] / 60
    return known | scores


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


def finished(folders: Sequence[Path], hint: str) -> list[dict[str, Any]]:
    """The runs in `folders`, oldest first in each, without those of the smoke preset: they are no results.

    Raises:
        UserError: if there is none; `hint` is the command that makes one.
    """
    runs = [read(path) for folder in folders for path in sorted(folder.glob("*/scores.json"))]
    where = " and ".join(map(str, folders)) if len(folders) < 5 else f"{folders[0].parent} and its like"
    return without_smoke(runs, where, hint)


def without_smoke(runs: Sequence[dict[str, Any]], where: str, hint: str) -> list[dict[str, Any]]:
    real = [run for run in runs if run["preset"] != "smoke"]
    if smoke := len(runs) - len(real):
        print(f"refused: {smoke} run{'s' * (smoke > 1)} of the smoke preset")
    if not real:
        verb = "hold" if " and " in where else "holds"
        raise UserError(f"{where} {verb} no finished run of the cpu or paper preset: {hint}")
    return real


def check_same_data(runs: Iterable[dict[str, Any]], where: str) -> None:
    """Raises `UserError` unless all `runs` are on the same data and task: other scores do not compare."""
    data = {(run["dataset"], run["task"], run["sha256"][:16]) for run in runs}
    if len(data) > 1:
        raise UserError(f"{where}: runs on different data ({sorted(data)}): use an --out for each")


def write(target: Path, text: str, rows: Sequence[dict[str, Any]]) -> None:
    """`table.md` and `table.csv` in the folder `target`; the first row names the columns."""
    replace_text(target / "table.md", text)
    with (target / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{text}\nwritten to {target}")
