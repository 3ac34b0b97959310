"""All runs on one page to look at: a table to sort and filter, curves, films, and any two runs compared.

    python experiments/report.py

Reads results/<experiment>/<dataset>/<run>/ and writes results/report.html: one file that needs no network
and no server, to be opened from disk or sent to somebody. With `--sweep NAME` it shows the cells of that
sweep alone. Runs that are unfinished or cannot be read are rows too, and say why.
"""

import base64
import hashlib
import json
import re
import shlex
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import itables.options
import pandas as pd
from command_line import parse, run_main
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from report_curves import Picture, curves_of

from jdp.errors import StorageError, UserError
from jdp.evaluation.summary import with_interval
from jdp.runs.cells import flat
from jdp.runs.directories import replace_text
from jdp.runs.frame import read_runs

KINDS = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}
LENGTH = 200_000  # characters, at most, of a report
WIDE = 2.2  # a picture wider than this many heights scrolls on a phone


@dataclass(frozen=True)
class Config:
    """Make the page of all runs, or of one sweep."""

    out: Path = Path("results")
    """Where the runs are."""
    sweep: str | None = None
    """Only the cells of this sweep (results/sweeps/NAME/cells.json)."""
    to: Path | None = None
    """The page; report.html beside the runs or in the sweep's folder, where nothing is given."""
    file_megabytes: float = 4.0
    """Figures and films larger than this are named and not shown."""
    total_megabytes: float = 40.0
    """Of figures and films in all; the newest runs' are taken first."""


class File(NamedTuple):
    """A picture or film of a run: its data URI, or why it is not shown."""

    name: str
    path: str
    megabytes: float
    uri: str | None
    why: str = ""
    wide: bool = False


class Section(NamedTuple):
    """What the page tells of one run directory below the table."""

    anchor: str
    rows: list[dict[str, Any]]  # of `read_runs`: one, or one an arm
    facts: dict[str, str]
    curves: list[Picture]
    files: list[File]
    report: str
    settings: dict[str, str]
    made_with: dict[str, str]


def main() -> None:
    write(parse(Config, None, __doc__ or ""))


def write(config: Config) -> None:
    """Writes the page.

    Raises:
        UserError: if there are no runs, or it cannot be written.
    """
    runs = read_runs(config.out, config.sweep)
    if runs.empty:
        raise UserError(
            f"{config.out} holds no runs (<experiment>/<dataset>/<run>): "
            "make one with python experiments/pgd_d4rl.py, or name another --out"
        )
    found = sections(runs, config)
    home = config.out if config.sweep is None else config.out / "sweeps" / config.sweep
    target = config.to or home / "report.html"
    try:
        replace_text(target, page(found, config))
    except (OSError, StorageError) as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise UserError(f"cannot write {target} ({reason}): choose another --to") from error
    left = sum(file.uri is None for section in found for file in section.files)
    print(f"written to {target}: {len(found)} runs, {target.stat().st_size / 1e6:.1f} MB")
    if left:
        print(f"figures named but not shown: {left}; raise --file-megabytes or --total-megabytes for them")


def sections(runs: pd.DataFrame, config: Config) -> list[Section]:
    """One for every run directory and every cell without one, the newest first."""
    runs = runs.astype(object).where(runs.notna(), None)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in runs.sort_values(
        "started", key=lambda s: s.fillna(""), ascending=False, kind="stable"
    ).to_dict("records"):
        by_name.setdefault(str(row["id"]).partition("~")[0], []).append({str(k): row[k] for k in row})
    drawn, room, found = curves_of(runs), config.total_megabytes, []
    for name, rows in by_name.items():
        first = rows[0]
        folder = Path(first["path"]) if first["path"] else None
        files = list(figures(folder, config.file_megabytes, room)) if folder else []
        room -= sum(file.megabytes for file in files if file.uri)
        found.append(
            Section(
                anchor=anchor(name),
                rows=[row | {"anchor": anchor(row["id"])} for row in rows],
                facts=facts(first),
                curves=drawn.get(first["path"], []),
                files=files,
                report=read_report(folder),
                settings={key: text(value) for key, value in flat(first["config"]).items()},
                made_with=made_with(first),
            )
        )
    return found


def anchor(name: str) -> str:
    """An id that is the same on every page, whatever letters a directory's name has."""
    return "r" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def figures(folder: Path, most: float, room: float) -> Iterable[File]:
    """The pictures and films of a run; those that are larger than `most` or than the `room` are named."""
    try:
        paths = [p for p in sorted((folder / "figures").iterdir()) if p.suffix in KINDS and p.is_file()]
    except OSError:
        return
    for path in paths:
        size, content, why = path.stat().st_size / 1e6, b"", ""
        if size > most:
            why = f"larger than {most:g} MB"
        elif size > room:
            why = "the page holds its megabytes of figures already"
        else:
            try:
                content = path.read_bytes()
            except OSError as error:
                why = str(error.strerror)
        wide = False
        if content[:4] == b"\x89PNG" and len(content) > 24:
            width, height = struct.unpack(">II", content[16:24])
            wide = width > WIDE * height
        room -= 0 if why else size
        yield File(path.name, str(path), size, None if why else uri(content, KINDS[path.suffix]), why, wide)


def uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def read_report(folder: Path | None) -> str:
    try:
        return (folder / "report.txt").read_text(errors="replace")[:LENGTH] if folder else ""
    except OSError:
        return ""


def facts(run: Mapping[str, Any]) -> dict[str, str]:
    """What the page says of a run, or of a row in the comparison of two, without what is not known."""
    known = {
        "dataset": run["dataset"],
        "task": run["task"],
        str(run["score_name"] or "score"): score(run),
        "of each seed": " ".join(f"{s:.1f}" for s in run["scores"] or ()),
        "behaviour policy": run["behaviour"] and f"{run['behaviour']:.1f}",
        "seeds": count(run["seeds"]),
        "updates": count(run["updates"]),
        "episodes a seed": count(run["episodes"]),
        "minutes of training": minutes(run["minutes"]),
        "time of a decision": latency(run["latency"]),
        "preset": run["preset"],
        "status": run["status"],
        "started": run["started"],
        "sweep": run["sweep"],
    }
    return {name: text(value) for name, value in known.items() if value not in (None, "")}


def made_with(run: Mapping[str, Any]) -> dict[str, str]:
    """What a number depends on besides the settings."""
    more = dict(run["facts"])
    packages = more.pop("packages", None) or {}
    known = {"commit": run["commit"], "data, SHA-256": run["sha256"], **more, **packages}
    return {name: text(value) for name, value in known.items() if value not in (None, "")}


def score(run: Mapping[str, Any]) -> str:
    return with_interval(run["score"], run["low"], run["high"])


def count(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else ""


def minutes(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def latency(value: float | None) -> str:
    return "" if value is None else f"{1e3 * value:.3g} ms"


def text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def comparable(section: Section) -> dict[str, dict[str, Any]]:
    """Of every row by its anchor, what the comparison of two needs."""
    others = {name: value for name, value in section.made_with.items() if name != "hash"}
    return {
        row["anchor"]: {
            "name": row["method"],
            "run": section.anchor,
            "path": shlex.quote(row["path"] + (f"~{row['arm']}" if row["arm"] else "")),
            "facts": facts(row),
            "must": must_agree(row),
            "settings": {"arm": row["arm"] or "none"} | section.settings | others,
            "scored": row["score"] is not None,
        }
        for row in section.rows
    }


def must_agree(run: Mapping[str, Any]) -> dict[str, str]:
    """Where two results differ in one of these, their scores do not compare, or say little of the methods."""
    known = {
        "data": f"{run['dataset']}, SHA-256 {str(run['sha256'])[:8]}",
        "tasks": run["task"],
        "kinds of score": run["score_name"],
        "numbers of updates": count(run["updates"]),
        "presets": run["preset"],
    }
    return {what: str(value or "not known") for what, value in known.items()}


def page(found: list[Section], config: Config) -> str:
    """experiments/report.html filled in. Every text of a run is escaped there.

    DataTables comes from the files that itables carries for work without a network. Only the scripts of the
    page itself may run, and nothing may be fetched: its security policy says so.
    """
    bundle = Path(itables.options.dt_bundle)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {f.__name__: f for f in (score, count, minutes, latency)}
    environment.policies["json.dumps_kwargs"] = {}  # in the order of the configuration
    filled = environment.get_template("report.html").render(
        sections=found,
        rows=sum(len(section.rows) for section in found),
        smoke=sum(row["preset"] == "smoke" for section in found for row in section.rows),
        comparable={key: value for section in found for key, value in comparable(section).items()},
        command=shlex.join(["python", "experiments/table.py", "--out", str(config.out), "--compare"]),
        place=f"sweep {config.sweep} in {config.out}" if config.sweep else str(config.out),
        made=time.strftime("%Y-%m-%d %H:%M"),
        style=bundle.with_suffix(".css").read_text(),
        bundle=base64.b64encode(bundle.read_bytes()).decode(),
    )
    code = re.findall(r"<script>(.*?)</script>", filled, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in code]
    return filled.replace("SCRIPTS", " ".join(f"'sha256-{found}'" for found in hashes), 1)


if __name__ == "__main__":
    run_main(main)
