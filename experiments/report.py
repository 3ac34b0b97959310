"""All runs on one page to look at: a table to sort and filter, curves, films, and any two runs compared.

    python experiments/report.py

Reads results/<experiment>/<dataset>/<run>/ and writes results/report.html: one file that needs no network
and no server, to be opened from disk or sent to somebody. With `--sweep NAME` it shows the cells of that
sweep alone. Runs that are unfinished or cannot be read are rows too, and say why. Takes seconds.
"""

import base64
import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import run_main
from report_curves import Row
from report_runs import describe
from report_sweep import blank, cells, every_cell
from scipy import stats

from jdp.errors import StorageError, UserError
from jdp.runs.directories import replace_text, to_json

PAGE = Path(__file__).parent / "page"
NOT_EXPERIMENTS = ("tables", "sweeps", "dataset_cards")  # other folders of results/
KINDS = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


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


def main() -> None:
    write(tyro.cli(Config, description=__doc__))


def write(config: Config) -> None:
    """Writes the page.

    Raises:
        UserError: if there are no runs, or it cannot be written.
    """
    runs = collect(config.out, config.sweep)
    files = embed(runs, config)
    home = config.out if config.sweep is None else config.out / "sweeps" / config.sweep
    target = config.to or home / "report.html"
    text = page(runs, files, config)
    try:
        replace_text(target, text)
    except (OSError, StorageError) as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise UserError(f"cannot write {target} ({reason}): choose another --to") from error
    left = sum(file["id"] is None for run in runs for file in run["files"])
    print(f"written to {target}: {len(runs)} runs, {target.stat().st_size / 1e6:.1f} MB")
    if left:
        print(f"figures named but not shown: {left}; raise --file-megabytes or --total-megabytes for them")


def collect(out: Path, sweep: str | None) -> list[Row]:
    """The rows of all runs below `out`, or of the cells of one sweep; newest first.

    Raises:
        UserError: if there is none.
    """
    folders = [p for p in sorted(out.glob("*/*/*")) if p.is_dir() and is_run(p.relative_to(out))]
    runs = {run["id"]: run | {"files": figures(folder)} for folder in folders for run in [describe(folder)]}
    known = every_cell(out) if sweep is None else cells(out, sweep)
    if sweep is not None:
        runs = {cell["id"]: runs.get(cell["id"]) or blank(cell) for cell in known}
    for cell in known:
        run = runs.get(cell["id"], {"status": None})
        # A finished run knows better than its sweep: a failed cell may have been run again by hand.
        if run["status"] == "unfinished" and cell.get("status") in ("failed", "running"):
            run |= {"status": cell["status"], "error": cell.get("error")}
    if not runs:
        raise UserError(
            f"{out} holds no runs (<experiment>/<dataset>/<run>): "
            "make one with python experiments/pgd_d4rl.py, or name another --out"
        )
    return sorted(runs.values(), key=lambda run: (run.get("started") or "", run["id"]), reverse=True)


def is_run(path: Path) -> bool:
    return path.parts[0] not in NOT_EXPERIMENTS and not any(part.startswith(".") for part in path.parts)


def figures(folder: Path) -> list[Row]:
    """Pictures and films of a run, by name and size."""
    try:
        found = [p for p in sorted((folder / "figures").iterdir()) if p.suffix in KINDS and p.is_file()]
        return [{"name": p.name, "path": str(p), "bytes": p.stat().st_size, "id": None} for p in found]
    except OSError:
        return []


def embed(runs: Sequence[Row], config: Config) -> dict[str, str]:
    """The files that fit, as data URIs by id; sets the `id` of each in its run, and `why` of the others."""
    room, found = config.total_megabytes * 1e6, {}
    for file in (file for run in runs for file in run["files"]):
        if file["bytes"] > config.file_megabytes * 1e6:
            file["why"] = f"larger than {config.file_megabytes:g} MB"
            continue
        if file["bytes"] > room:
            file["why"] = f"the page holds {config.total_megabytes:g} MB of figures already"
            continue
        try:
            content = base64.b64encode(Path(file["path"]).read_bytes()).decode()
        except OSError as error:
            file["why"] = error.strerror
            continue
        file["id"] = f"file-{len(found)}"
        found[file["id"]] = f"data:{KINDS[Path(file['path']).suffix]};base64,{content}"
        room -= file["bytes"]
    return found


def page(runs: Sequence[Row], files: dict[str, str], config: Config) -> str:
    """The sources in experiments/page/ with styles, scripts, data and files in one text.

    Only the scripts of the page itself may run, and nothing may be fetched: its security policy says so.
    """
    data = {
        "out": str(config.out),
        "sweep": config.sweep,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "runs": runs,
        # For Welch's interval: the 97.5 % quantile of Student's t over 1 / degrees of freedom, 0 to 1.
        "t": [float(stats.t.ppf(0.975, 1 / u if u else np.inf)) for u in np.linspace(0, 1, 513)],
    }
    hashes = []

    def script(match: re.Match[str]) -> str:
        code = (PAGE / match[1]).read_text()
        hashes.append(base64.b64encode(hashlib.sha256(code.encode()).digest()).decode())
        return f"<script>{code}</script>"

    text = (PAGE / "page.html").read_text()
    text = re.sub(r'<script src="(.*?)"></script>', script, text)
    text = text.replace("SCRIPTS", " ".join(f"'sha256-{h}'" for h in hashes), 1)
    text = re.sub(
        r'<link rel="stylesheet".*?>', lambda _: f"<style>{(PAGE / 'page.css').read_text()}</style>", text
    )
    blocks = [block("data", "application/json", as_json(data))]
    blocks += [block(name, "text/plain", uri) for name, uri in files.items()]
    return text.replace("<!-- data -->", "\n".join(blocks), 1)


def block(name: str, kind: str, content: str) -> str:
    return f'<script id="{name}" type="{kind}">{content}</script>'


def as_json(value: Any) -> str:
    """JSON that may stand in a script element: no text in it can end the element or open a comment."""
    return json.dumps(to_json(value), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


if __name__ == "__main__":
    run_main(main)
