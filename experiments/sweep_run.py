"""The loop of a sweep: start what waits where there is room, see what ended, write it down, show one line."""

import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sweep_launch as launch
from sweep_cell import AGAIN, RunCell
from sweep_watch import finished, last_of, outcome_of, run_of, share_of
from tqdm import tqdm

from jdp.errors import UserError
from jdp.runs.directories import replace_text

FRUITLESS = 5  # times in a row that a cell may ask to be run again without having gone on
STOPPED = (AGAIN, 130, 143, -signal.SIGTERM, -signal.SIGKILL)  # how a cell ends that was told to


@dataclass
class Work:
    """One cell, as the sweep sees it."""

    name: str
    command: list[str]
    minutes: float | None  # that it is expected to take
    status: str = "waiting"  # running, finished, failed
    run: str | None = None
    error: str | None = None
    seconds: float = 0.0  # of all attempts
    known: bool = False  # its logs are of this command
    job: Any = None
    attempt: str = ""
    place: int | None = None
    share: float = 0.0
    reached: tuple[str, int] | None = None  # when it last asked to be run again
    fruitless: int = 0
    silent: float | None = None  # since when its job is over, without an outcome


@dataclass
class Sweep:
    """A sweep and where its cells run."""

    folder: Path
    file: Path
    works: list[Work]
    places: list[launch.Slot]
    slurm: launch.Slurm | None

    def log(self, work: Work) -> Path:
        """What the names of a cell's files begin with."""
        return self.folder.absolute() / "logs" / work.name

    def having(self, status: str) -> list[Work]:
        return [work for work in self.works if work.status == status]


def take_up(sweep: Sweep) -> None:
    """Takes over what cells.json says of the same commands: what is finished, and what Slurm still runs.

    Raises:
        UserError: if the file is damaged, or of another grid.
    """
    path, jobs = sweep.folder / "cells.json", sweep.folder / "slurm.json"
    if not path.exists():
        return
    try:
        written = json.loads(path.read_text())
        known, file = {tuple(cell["command"]): cell for cell in written["cells"]}, Path(written["file"])
        slurm = json.loads(jobs.read_text()) if jobs.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of cells ({error}): move {sweep.folder} away") from error
    if file.exists() and file.resolve() != sweep.file.resolve():
        raise UserError(f"{sweep.folder} is the sweep of {file}: rename {sweep.file}, or give another --out")
    for work in sweep.works:
        cell = known.get(tuple(work.command))
        if cell is None:
            continue
        work.known, work.seconds = cell["name"] == work.name, cell["seconds"]
        if cell["status"] == "finished" and finished(cell["run"]):
            work.status, work.run = "finished", cell["run"]
        elif sweep.slurm and cell["status"] == "running" and work.name in slurm:
            work.status, work.attempt = "running", slurm[work.name]["attempt"]
            work.job = launch.adopt(sweep.folder / "submitit", slurm[work.name]["job"])


def write(sweep: Sweep) -> None:
    """cells.json, and beside it which Slurm jobs run, for the next process of this sweep."""
    keys = ("name", "command", "status", "run", "error", "seconds")
    cells = [{key: getattr(work, key) for key in keys} for work in sweep.works]
    text = json.dumps({"name": sweep.folder.name, "file": str(sweep.file), "cells": cells}, indent=1)
    replace_text(sweep.folder / "cells.json", text + "\n")
    if sweep.slurm:
        jobs = {w.name: {"job": w.job.job_id, "attempt": w.attempt} for w in sweep.having("running")}
        replace_text(sweep.folder / "slurm.json", json.dumps(jobs) + "\n")


@contextmanager
def listening() -> Iterator[list[int]]:
    """A list of the signals to stop that have come."""
    came: list[int] = []
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, lambda number, _: came.append(number)) for name in names}
    try:
        yield came
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def run(sweep: Sweep) -> int | None:
    """Runs the cells until none waits; the signal that ended it before, if one did.

    Told to stop, it passes SIGTERM on to local cells, which write checkpoints, and waits for them (a second
    signal kills them); Slurm's jobs go on alone.
    """
    made = launch.executor(sweep.folder / "submitit", sweep.folder.name, len(sweep.places), sweep.slurm)
    told = 0
    with listening() as came, line(sweep) as show:
        write(sweep)
        while True:
            if not came and start(sweep, made):
                write(sweep)
            if any([settle(sweep, work, bool(came)) for work in sweep.having("running")]):
                write(sweep)
            show()
            if not sweep.having("running") and (came or not sweep.having("waiting")):
                break
            if came and sweep.slurm:
                break
            while told < len(came):
                told += 1
                for work in sweep.having("running"):
                    launch.terminate(work.job)
            time.sleep(2.0 if sweep.slurm else 0.2)
        write(sweep)
    return came[0] if came else None


def start(sweep: Sweep, made: Any) -> list[Work]:
    """Starts waiting cells: on Slurm all, here as many as there is room for."""
    waiting = sweep.having("waiting")
    if not sweep.slurm:
        taken = {work.place for work in sweep.having("running")}
        free = [i for i in range(len(sweep.places)) if i not in taken]
        for work, place in zip(waiting, free, strict=False):
            work.place = place
        waiting = waiting[: len(free)]
    runs = [prepared(sweep, work) for work in waiting]
    for work, job in zip(waiting, launch.submit(made, runs) if runs else [], strict=True):
        work.job, work.status, work.error, work.silent = job, "running", None, None
    return waiting


def prepared(sweep: Sweep, work: Work) -> RunCell:
    """What runs a cell once more; logs of another command under its name are removed."""
    stem = sweep.log(work)
    if not work.known:
        for end in ("out", "err"):
            stem.with_name(f"{stem.name}.{end}").unlink(missing_ok=True)
    work.known, work.attempt = True, uuid.uuid4().hex
    if sweep.slurm:
        return RunCell(stem, work.command, attempt=work.attempt)
    place = sweep.places[work.place or 0]
    changes = launch.environment(place)
    return RunCell(stem, work.command, attempt=work.attempt, cores=list(place.cores), environment=changes)


def settle(sweep: Sweep, work: Work, stopping: bool) -> bool:
    """Whether a running cell's attempt has ended; then it is finished, failed, or waits to be run again."""
    stem = sweep.log(work)
    outcome = outcome_of(stem, work.attempt)
    over = launch.ended(work.job) if outcome is None or not sweep.slurm or outcome["code"] == AGAIN else True
    if not over:
        work.silent = None
        return False
    if outcome is None:  # its file may come late over a network
        work.silent = work.silent or time.monotonic()
        if time.monotonic() - work.silent < (20.0 if sweep.slurm else 0.5):
            return False
        outcome = {"code": None, "seconds": 0.0, "error": launch.last_words(work.job)}
    found = run_of(stem)
    code, work.run = outcome["code"], None if found is None else str(found)
    work.seconds = round(work.seconds + outcome["seconds"], 1)
    if code == 0:
        work.status, work.share = "finished", 1.0
    elif stopping and (code is None or code in STOPPED):
        work.status = "waiting"
    elif code == AGAIN and not launch.cancelled(work.job):
        again(work, last_of(found))
    else:
        cancelled = code == AGAIN and "cancelled in Slurm"
        work.status, work.error = "failed", cancelled or outcome["error"]
    if work.status == "failed":
        tqdm.write(f"failed     {work.name}: {work.error}")
    if code is not None:
        launch.tidy(work.job)
    work.job, work.place = None, None
    return True


def again(work: Work, reached: tuple[str, int] | None) -> None:
    """Puts a cell that asked for it back among the waiting, unless that leads nowhere."""
    work.fruitless = work.fruitless + 1 if reached == work.reached else 0
    work.status, work.reached = "waiting", reached
    if work.fruitless >= FRUITLESS:
        work.status, work.error = "failed", f"asked {FRUITLESS} times to be run again without having gone on"


@contextmanager
def line(sweep: Sweep) -> Iterator[Any]:
    """The progress line: cells, the share that is done by expected cost, and the time left.

    Where no terminal shows it, a line when the number of cells in a state changes.
    """
    known = [work.minutes for work in sweep.works if work.minutes is not None]
    mean = sum(known) / len(known) if known else 1.0
    costs = [work.minutes if work.minutes is not None else mean for work in sweep.works]

    def spent(*counted: str) -> float:
        """The cost of the cells of these statuses, of running ones as far as they are."""
        return sum(
            cost * (work.share if work.status == "running" else 1.0)
            for cost, work in zip(costs, sweep.works, strict=True)
            if work.status in counted
        )

    first, began, seen, told = spent("finished"), time.monotonic(), 0.0, ""
    terminal = sys.stdout.isatty()
    look = {"bar_format": "{desc} {percentage:3.0f}% |{bar:20}|", "dynamic_ncols": True}
    with tqdm(desc=sweep.folder.name, total=sum(costs), file=sys.stdout, disable=not terminal, **look) as bar:

        def show() -> None:
            nonlocal seen, told
            now = time.monotonic()
            if now - seen < 2 and sweep.having("running"):
                return
            seen = now
            for work in sweep.having("running"):
                found = run_of(sweep.log(work))
                work.run, work.share = (None if found is None else str(found)), share_of(found)
            done, over = spent("finished", "running"), spent("failed")
            gained, left = done - first, sum(costs) - over - done
            counts = ", ".join(f"{len(sweep.having(s))} {s}" for s in ("finished", "failed", "running"))
            text = f"{sweep.folder.name}: {counts} of {len(sweep.works)}"
            if not terminal and counts != told:
                told = counts
                print(text, flush=True)
            if gained > 0.02 * sum(costs) and left > 0:
                text += f", {duration(left * (now - began) / gained)} left"
            bar.set_description_str(text, refresh=False)
            bar.n = min(sum(costs), done + over)
            bar.refresh()

        yield show


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
