"""What the tables of runs share: reading finished runs, refusing smoke and mixed data, writing the files."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jdp.errors import UserError
from jdp.training.runs import replace_text


def plain(env: str) -> str:
    """The folder's name of a dataset, as runs are filed under it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", env).strip("-")


def read(path: Path) -> dict[str, Any]:
    """A finished run's `scores.json` and what it depends on.

    Raises:
        UserError: if it or the `config.json` beside it is missing or cut short.
    """
    try:
        scores, written = json.loads(path.read_text()), json.loads((path.parent / "config.json").read_text())
        keep = ("sha256", "commit", "devices", "cores", "config")
        facts = {k: written[k] for k in keep} | {"spec": written.get("spec", {}), "path": path.parent}
    except (OSError, ValueError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path.parent} is no whole finished run ({reason}): move it away") from error
    command = re.sub(r" --(out|resume)[ =]\S+| --resume\b", "", written.get("command", "(not recorded)"))
    return scores | facts | {"command": command}


def finished(folders: Sequence[Path], hint: str) -> list[dict[str, Any]]:
    """The runs in `folders`, oldest first in each, without those of the smoke preset: they are no results.

    Raises:
        UserError: if there is none (`hint` is the command that makes one), or they are on different data.
    """
    runs = [read(path) for folder in folders for path in sorted(folder.glob("*/scores.json"))]
    real = [run for run in runs if run["preset"] != "smoke"]
    if smoke := len(runs) - len(real):
        print(f"refused: {smoke} run{'s' * (smoke > 1)} of the smoke preset")
    where = " and ".join(map(str, folders))
    if not real:
        verb = "holds" if len(folders) == 1 else "hold"
        raise UserError(f"{where} {verb} no finished run of the cpu or paper preset: {hint}")
    check_same_data(real, where)
    return real


def check_same_data(runs: Sequence[dict[str, Any]], where: str) -> None:
    """Raises `UserError` unless all `runs` are on the same data and task: other scores do not compare."""
    data = {(run["dataset"], run["task"], run["sha256"][:16]) for run in runs}
    if len(data) > 1:
        raise UserError(f"{where}: runs on different data ({sorted(data)}): use an --out for each")


def write(target: Path, text: str, head: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """`table.md` and `table.csv` in the folder `target`."""
    replace_text(target / "table.md", text)
    with (target / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, head)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{text}\nwritten to {target}")


def ending(runs: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]]) -> list[str]:
    """The last lines of a table: the devices of its runs, and the command that made every row."""
    devices = ", ".join(sorted({device for run in runs for device in run["devices"]}))
    return [f"{devices}. The rows were made by", "", *(f"    {r['command']}" for r in rows)]
