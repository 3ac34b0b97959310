"""The cells of a sweep (results/sweeps/NAME/cells.json, which sweep.py writes) as rows of report.py."""

import contextlib
import json
import shlex
from pathlib import Path

from report_curves import Row
from report_runs import UNREADABLE

from jdp.errors import UserError


def cells(out: Path, sweep: str) -> list[Row]:
    """The cells of a sweep, each with the `id` of its run.

    Raises:
        UserError: if there is no such sweep, or its file cannot be read.
    """
    path = out / "sweeps" / sweep / "cells.json"
    if not path.exists():
        known = ", ".join(p.parent.name for p in sorted(out.glob("sweeps/*/cells.json"))) or "none"
        raise UserError(f"no sweep {sweep} in {out}: there are {known}")
    try:
        return [dict(cell) | {"id": cell_id(cell)} for cell in json.loads(path.read_text())["cells"]]
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read ({error}): repeat sweep.py, or move it away") from error


def every_cell(out: Path) -> list[Row]:
    """The cells of all sweeps that can be read."""
    found = []
    for path in sorted(out.glob("sweeps/*/cells.json")):
        with contextlib.suppress(UserError):
            found += cells(out, path.parent.name)
    return found


def cell_id(cell: Row) -> str:
    """Of its run, wherever the results have been moved to; a cell without a run goes by its own name."""
    return "/".join(Path(cell["run"]).parts[-3:]) if cell.get("run") else f"cell {cell.get('name')}"


def blank(cell: Row) -> Row:
    """The row of a cell that has no run, or whose run is gone."""
    gone = f"its run {cell['run']} is gone" if cell.get("run") else None
    return {
        "id": cell["id"],
        "path": str(cell.get("run") or ""),
        "experiment": "",
        "dataset": "",
        "status": "broken" if gone else str(cell.get("status")),
        "error": gone or cell.get("error"),
        "command": shlex.join(map(str, cell.get("command") or [])) or None,
        "config": {},
        "facts": {},
        "curves": [],
        "results": [{"arm": None, "method": str(cell.get("name"))}],
        "files": [],
    }
