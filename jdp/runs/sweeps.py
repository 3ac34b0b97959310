"""The cells of a sweep, as `sweeps/<name>/cells.json` below the results lists them."""

import contextlib
import json
import shlex
from pathlib import Path
from typing import TypedDict

from jdp.errors import UserError
from jdp.runs.logs import UNREADABLE


class SweepCell(TypedDict):
    """One run of a sweep, made or not."""

    sweep: str
    name: str  # unique in the sweep
    status: str  # waiting, running, finished, failed
    run: str | None  # its directory, as it was then
    error: str | None  # the last words of one that failed
    command: str


def read_cells(out: Path, sweep: str) -> list[SweepCell]:
    """The cells of one sweep, in the order of its grid.

    Raises:
        UserError: if there is no such sweep, or its file cannot be read.
    """
    path = out / "sweeps" / sweep / "cells.json"
    if not path.exists():
        known = ", ".join(p.parent.name for p in sorted(out.glob("sweeps/*/cells.json")))
        hint = f"there is {known}" if known else "experiments/sweep.py makes one"
        raise UserError(f"no sweep {sweep} in {out / 'sweeps'}: {hint}")
    try:
        return [
            SweepCell(
                sweep=sweep,
                name=str(cell["name"]),
                status=str(cell["status"]),
                run=None if cell.get("run") is None else str(cell["run"]),
                error=None if cell.get("error") is None else str(cell["error"]),
                command=shlex.join(map(str, cell.get("command") or [])),
            )
            for cell in json.loads(path.read_text())["cells"]
        ]
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        what = f"{path} cannot be read, it is no list of cells ({reason})"
        raise UserError(f"{what}: repeat the sweep, or move {path.parent} away") from error


def read_every_cell(out: Path) -> list[SweepCell]:
    """The cells of all sweeps that can be read."""
    found: list[SweepCell] = []
    for path in sorted(out.glob("sweeps/*/cells.json")):
        with contextlib.suppress(UserError):
            found += read_cells(out, path.parent.name)
    return found


def row_without_run(cell: SweepCell) -> dict[str, object]:
    """What is known of a cell that has no run, or whose run is gone."""
    gone = f"its run {cell['run']} is gone" if cell["run"] else None
    return {
        "id": f"cell {cell['name']}",
        "method": cell["name"],
        "status": "broken" if gone else cell["status"],
        "error": gone or cell["error"],
        "command": cell["command"] or None,
        "sweep": cell["sweep"],
        "config": {},
        "facts": {},
    }
