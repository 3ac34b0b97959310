"""The small files of finished runs, kept beside a table: it can be made again from them, and go on elsewhere.

`tables/<name>/runs/<experiment>/<dataset>/<run>/` holds of each run what tables and figures of scores read:
`config.json`, `scores.json`, and `metrics.jsonl` with the evaluations whole and of other lines the time.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from jdp.runs.directories import replace_text
from jdp.runs.logs import logged
from jdp.runs.records import without_place

FOLDER = "runs"
TIMES = ("phase", "step", "seconds")


def kept_runs(out: Path, table: str) -> list[Path]:
    """The directories of the runs that the table keeps."""
    return sorted(path.parent for path in (out / "tables" / table / FOLDER).glob("*/*/*/config.json"))


def keep_runs(out: Path, table: str, runs: Iterable[Path]) -> None:
    """Keeps the small files of `runs` in the folder of the table; what it holds of others stays.

    Raises:
        StorageError: if a file cannot be written.
    """
    for run in runs:
        target = out / "tables" / table / FOLDER / Path(*run.parts[-3:])
        if run.resolve() == target.resolve():
            continue
        target.mkdir(parents=True, exist_ok=True)
        asked = json.loads((run / "config.json").read_text())
        for process in (asked, *asked.get("resumed", [])):  # whose commands may name folders of a machine
            process["command"] = without_place(str(process.get("command") or ""))
        replace_text(target / "config.json", json.dumps(asked, indent=2) + "\n")
        replace_text(target / "scores.json", (run / "scores.json").read_text())
        lines = [short(record) for record in logged(run / "metrics.jsonl")]
        replace_text(target / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))


def short(record: dict[str, object]) -> dict[str, object]:
    """A line of `metrics.jsonl`; without its losses where it is none of an evaluation."""
    if str(record["phase"]).endswith("evaluation"):
        return record
    return {name: record[name] for name in TIMES if name in record}
