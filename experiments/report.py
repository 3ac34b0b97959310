"""All runs on one page to look at: a table to sort and filter, curves, films, and any two runs compared.

    python experiments/report.py

Reads results/<experiment>/<dataset>/<run>/ and writes results/report.html: one file that needs no network
and no server, to be opened from disk or sent to somebody. With `--sweep NAME` it shows the cells of that
sweep alone. Runs that are unfinished or cannot be read are rows too, and say why.
"""

import base64
import contextlib
import hashlib
import io
import json
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import itables.options
import matplotlib
import numpy as np
import pandas as pd
from command_line import parse, run_main
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from jdp import plotting
from jdp.errors import StorageError, UserError
from jdp.evaluation.summary import with_interval
from jdp.runs.curves import SCORE, by_metric, read_curves, summarise
from jdp.runs.directories import replace_text
from jdp.runs.frame import read_runs
from jdp.runs.logs import UNREADABLE
from jdp.runs.records import Row
from jdp.runs.settings import flat

KINDS = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}
LENGTH = 200_000  # characters, at most, of a report
WIDE = 2.2  # a picture wider than this many heights scrolls on a phone
POINTS = 100  # of a curve, at most
MOST = 6  # curves of a run: the score, losses and errors first


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


class Curves(NamedTuple):
    """The curves of one metric as a picture, a line a phase."""

    metric: str
    uri: str
    said: str  # to those who cannot see it


class Section(NamedTuple):
    """What the page tells of one run directory below the table."""

    anchor: str
    rows: list[Row]  # of `read_runs`: one, or one an arm
    facts: dict[str, str]
    curves: list[Curves]
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
    runs = runs.sort_values("started", key=lambda s: s.fillna(""), ascending=False, kind="stable")
    drawn, room, found = curves_of(runs), config.total_megabytes, []
    for name, like in runs.groupby(runs.id.str.partition("~")[0], sort=False):
        rows: list[Row] = [{str(k): row[k] for k in row} for row in like.to_dict("records")]
        first, report = rows[0], Path(rows[0]["path"] or "nowhere", "report.txt")
        files = list(figures(Path(first["path"]), config.file_megabytes, room)) if first["path"] else []
        room -= sum(file.megabytes for file in files if file.uri)
        found.append(
            Section(
                anchor=anchor(str(name)),
                rows=[row | {"anchor": anchor(row["id"])} for row in rows],
                facts=facts(first),
                curves=drawn.get(first["path"], []),
                files=files,
                report=report.read_text(errors="replace")[:LENGTH] if report.is_file() else "",
                settings=texts(flat(first["config"])),
                made_with=made_with(first),
            )
        )
    return found


def anchor(name: str) -> str:
    """An id that is the same on every page, whatever letters a directory's name has."""
    return "r" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def curves_of(runs: pd.DataFrame) -> dict[str, list[Curves]]:
    """Curves of all runs by their path. Scores on the same data and task have the same axis in all."""
    first = runs[runs.path.astype(bool)].drop_duplicates("path").set_index("path")
    first["data"] = list(zip(first.dataset, first.sha256, first.task, first.score_name, strict=True))
    curves: dict[str, pd.DataFrame] = {}
    for path in first.index:
        with contextlib.suppress(*UNREADABLE):  # the run's row says what is wrong with its files
            curves[path] = summarise(read_curves(path), POINTS)
    spans: dict[tuple[object, ...], tuple[float, float]] = {}
    for path, found in curves.items():
        if len(values := found["mean"][found.metric == SCORE].dropna()):
            low, high = spans.get(first.data[path], (np.inf, -np.inf))
            spans[first.data[path]] = min(low, values.min()), max(high, values.max())
    return {p: list(pictures(c, spans.get(first.data[p]), first.behaviour[p])) for p, c in curves.items()}


def pictures(
    curves: pd.DataFrame, span: tuple[float, float] | None, behaviour: float | None
) -> Iterator[Curves]:
    """The score of all phases in one picture, then the metrics of each phase, losses and errors first."""
    for title, lines in list(by_metric(curves).items())[:MOST]:
        scores, file = ({"behaviour": behaviour, "span": span} if title == SCORE else {}), io.BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jdp"}):
            figure = plotting.metric(lines, **scores)
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        last = lines.groupby("phase", sort=False)["mean"].last()
        said = "; ".join(f"{phase} ends at {value:.4g}" for phase, value in last.items())
        yield Curves(title, uri(file.getvalue(), "image/svg+xml"), f"{title} by step: {said}")


def figures(folder: Path, most: float, room: float) -> Iterable[File]:
    """The pictures and films of a run; those that are larger than `most` or than the `room` are named."""
    for path in sorted(path for path in folder.glob("figures/*") if path.suffix in KINDS):
        size, shown, why, wide = path.stat().st_size / 1e6, None, "", False
        if size > most:
            why = f"larger than {most:g} MB"
        elif size > room:
            why = "the page holds its megabytes of figures already"
        else:
            try:
                content = path.read_bytes()
                shown, room = uri(content, KINDS[path.suffix]), room - size
                if path.suffix == ".png":
                    width, height = Image.open(io.BytesIO(content)).size
                    wide = width > WIDE * height
            except OSError as error:
                why = str(error.strerror or "no picture")
        yield File(path.name, str(path), size, shown, why, wide)


def uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def facts(run: Row) -> dict[str, str]:
    """What the page says of a run, or of a row in the comparison of two."""
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
    return texts(known, drop=(None, ""))


def made_with(run: Row) -> dict[str, str]:
    """What a number depends on besides the settings."""
    packages = run["facts"].get("packages") or {}
    more = {name: value for name, value in run["facts"].items() if name != "packages"}
    known = {"commit": run["commit"], "data, SHA-256": run["sha256"], **more, **packages}
    return texts(known, drop=(None, ""))


def texts(values: Mapping[str, object], drop: tuple[object, ...] = ()) -> dict[str, str]:
    """Values as JSON writes them, texts as they are, without those in `drop`."""
    kept = {name: value for name, value in values.items() if not any(value is d or value == d for d in drop)}
    return {n: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for n, v in kept.items()}


def score(run: Row) -> str:
    return with_interval(run["score"], run["low"], run["high"])


def count(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else ""


def minutes(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def latency(value: float | None) -> str:
    return "" if value is None else f"{1e3 * value:.3g} ms"


def comparable(section: Section, row: Row) -> dict[str, object]:
    """What the comparison of a row with another needs."""
    others = {name: value for name, value in section.made_with.items() if name != "hash"}
    must = {  # agree: else their scores do not compare, or say little of the methods
        "data": f"{row['dataset']}, SHA-256 {str(row['sha256'])[:8]}",
        "tasks": row["task"],
        "kinds of score": row["score_name"],
        "numbers of updates": count(row["updates"]),
        "presets": row["preset"],
    }
    return {
        "name": row["method"],
        "run": section.anchor,
        "path": shlex.quote(row["path"] + (f"~{row['arm']}" if row["arm"] else "")),
        "facts": facts(row),
        "must": {what: str(value or "not known") for what, value in must.items()},
        "settings": {"arm": row["arm"] or "none"} | section.settings | others,
        "scored": row["score"] is not None,
    }


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
        comparable={row["anchor"]: comparable(section, row) for section in found for row in section.rows},
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
