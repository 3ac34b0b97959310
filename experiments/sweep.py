"""A grid of runs, methods x datasets x seeds x settings, on this machine or on a cluster.

    python experiments/sweep.py                    # the example: two agents on two datasets, minutes
    python experiments/sweep.py readme-planning --dry-run
    python experiments/sweep.py my_grid.toml --cluster slurm --request timeout_min 600 gpus_per_node 1

A grid is a small TOML file (docs/sweeps.md), each cell one command of a script. Interrupt the sweep whenever
you like: the same command goes on. results/sweeps/<grid>/ has cells.json, and what cells print in logs/.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from command_line import parse, run_main
from grid import check, read

from jdp.errors import UserError
from jdp.runs.directories import replace_text
from jdp.runs.kept import kept_runs
from jdp.runs.records import without_place
from jdp.runs.sweeps import read_cells

MISTAKE, AGAIN = 2, os.EX_TEMPFAIL  # a script's status after a user's mistake, and after SIGTERM
SOON = 60.0  # seconds: a cell that was preempted earlier has not gone on, and uses a retry
Place = tuple[list[int], dict[str, str]]  # the cores of this machine and the environment that a cell gets


@dataclass(frozen=True)
class Config:
    """Run a grid of experiments."""

    grid: tyro.conf.Positional[str] = "example"
    """A TOML file, or the name of one in experiments/grids/."""
    dry_run: bool = False
    """Print all commands and how many are to do; start nothing."""
    jobs: int | None = None
    """Cells at once; without it one for every GPU or every two cores, on a cluster 256."""
    retries: int = 1
    """How often a cell is started again that crashed (not after a user's mistake, status 2)."""
    cluster: Literal["slurm", "local"] | None = None
    """Submit the cells as an array job of submitit and wait for them; local: a trial of that."""
    request: dict[str, int | float | str] = field(default_factory=dict)
    """What a job asks of the cluster, by submitit's names: timeout_min 600 gpus_per_node 1 slurm_qos high."""
    out: Path = Path("results")


@dataclass
class Cell:
    """One command of a grid, and what is known of it; `cells.json` has these fields."""

    name: str
    command: list[str]  # which may be repeated until it exits with 0
    status: str = "waiting"  # running, finished, failed
    run: str | None = None  # directory
    error: str | None = None


@dataclass
class Runner:
    """Runs a cell to its end, here or (pickled by submitit) in a job; what it prints is appended to logs."""

    logs: Path
    retries: int
    places: list[Place | None]  # that are free; None in a job of a cluster, which gets all there is
    scripts: list[subprocess.Popen] = field(default_factory=list)
    stopped: int = 0  # the signal that came

    def __call__(self, cell: Cell) -> Cell:
        """The cell, finished or failed; waiting, if it was stopped."""
        place, tries = self.places.pop(), 0
        cell.status = "waiting" if self.stopped else "running"
        while cell.status == "running":
            began = time.monotonic()
            code, error = self.attempt(cell, *(place or ([], {})))
            tries += code != AGAIN or time.monotonic() - began < SOON
            if code == 0:
                cell.status = "finished"
            elif self.stopped or (code == AGAIN and not place):  # the cluster ends this job
                cell.status = "waiting"
            elif code == MISTAKE or tries > self.retries:
                cell.status, cell.error = "failed", error
        self.places.append(place)
        return cell

    def attempt(self, cell: Cell, cores: list[int], environment: dict[str, str]) -> tuple[int, str]:
        """Exit status and last words of the command."""
        if cores:
            os.sched_setaffinity(0, cores)  # of this thread; the script, XLA and BLAS inherit it
        paths = self.logs / f"{cell.name}.out", self.logs / f"{cell.name}.err"
        with paths[0].open("ab") as out, paths[1].open("ab") as err:
            script = subprocess.Popen(
                [sys.executable, *cell.command[1:]],
                stdout=out,
                stderr=err,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
                start_new_session=True,  # a Ctrl-C in the terminal is not for the scripts
            )
        self.scripts.append(script)
        if self.stopped:
            script.terminate()
        code = script.wait()
        said, wrong = (path.read_text(errors="replace") for path in paths)
        # Scripts say `run        <path>` when they open one, `finished   <path>` of one that was done before.
        runs = re.findall(r"^(?:run|finished)\s+(.+)$", said, re.MULTILINE)
        cell.run = next((path for path in reversed(runs) if Path(path, "config.json").is_file()), None)
        last = [f"exit code {code}", *wrong.strip().splitlines()][-1].removeprefix("error: ")
        return code, f"killed by {signal.Signals(-code).name}" if code < 0 else last

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Scripts write a checkpoint and end; told again, seconds later, they end at once."""
        self.stopped = self.stopped or number
        for script in self.scripts:
            script.terminate()


def places(jobs: int | None) -> list[Place]:
    """`--jobs` shares of this machine; by default one for every GPU, or without GPUs for every two cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    found = ",".join(sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")))
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", found).split(",") if gpu]
    n = jobs or len(gpus) or max(1, len(cores) // 2)
    shares = [cores[i * len(cores) // n : (i + 1) * len(cores) // n] or cores for i in range(n)]
    return [(shares[i], {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}) for i in range(n)]


def submit(config: Config, runner: Runner, cells: list[Cell], folder: Path) -> list:
    """Jobs, with the methods of futures; raises `UserError` where submitit or Slurm take them not."""
    try:
        import submitit

        executor = submitit.AutoExecutor(folder, cluster=config.cluster)
        executor.update_parameters(name=folder.parent.name, timeout_min=24 * 60)
        executor.update_parameters(slurm_array_parallelism=config.jobs or 256)
        executor.update_parameters(**config.request)
        return executor.map_array(runner, cells)
    except ImportError as error:
        raise UserError('--cluster needs submitit: pip install -e ".[sweeps]"') from error
    except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
        raise UserError(f"--cluster {config.cluster}: {str(error).splitlines()[0]}") from error


def run(config: Config, cells: list[Cell], folder: Path, file: Path) -> bool:
    """Runs all cells that are not finished; whether Ctrl-C ended that."""
    here = [None] if config.cluster else places(config.jobs)
    runner, jobs, shown = Runner(folder / "logs", config.retries, [*here]), {}, ""
    todo = {i: cell for i, cell in enumerate(cells) if cell.status != "finished"}

    def stop(number: int, _: object) -> None:
        runner.stop(number)
        for job in jobs.values() if config.cluster else ():
            job.cancel(check=False)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    with ThreadPoolExecutor(len(here)) as pool, ExitStack() as end:  # the pool waits for its scripts
        end.callback(runner.stop)  # also where cells.json cannot be written
        if config.cluster and todo:
            jobs |= zip(todo, submit(config, runner, list(todo.values()), folder / "submitit"), strict=True)
        else:
            jobs |= {i: pool.submit(runner, cell) for i, cell in todo.items()}
        going = True
        while going:
            going = not all(job.done() for job in jobs.values())
            for i in [i for i, job in jobs.items() if job.done()]:
                if error := jobs[i].exception():
                    cells[i].status = "waiting" if runner.stopped else "failed"
                    cells[i].error = str(error).strip().splitlines()[-1]
                else:
                    cells[i] = jobs[i].result()
            shown = tell(cells, folder, file, shown, last=not going)
            time.sleep(2.0 if config.cluster else 0.1)
    return runner.stopped == signal.SIGINT


def tell(cells: list[Cell], folder: Path, file: Path, shown: str, *, last: bool) -> str:
    """One line of progress, printed, with cells.json, where it is another than was `shown`, or the last."""
    counts = Counter(cell.status for cell in cells)
    told = ", ".join(f"{counts[status]} {status}" for status in ("finished", "failed", "running"))
    line = f"{folder.name}: {told} of {len(cells)}"
    if line != shown or last:
        known = {"name": folder.name, "file": str(file), "cells": [asdict(cell) for cell in cells]}
        replace_text(folder / "cells.json", json.dumps(known, indent=1) + "\n")
        print(line, end="\n" if last or not sys.stdout.isatty() else "  \r", flush=True)
    return line


def command_of(run: Path) -> str:
    """The command that made a run."""
    return without_place(str(json.loads((run / "config.json").read_text()).get("command")))


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    if (config.jobs or 1) < 1 or config.retries < 0:
        raise UserError("--jobs must be at least 1, and --retries at least 0")
    file, commands = read(config.grid, config.out)
    check(commands)
    cells, folder = [Cell(*both) for both in commands.items()], (config.out / "sweeps" / file.stem).absolute()
    known = read_cells(config.out, file.stem) if (folder / "cells.json").exists() else []
    runs = {without_place(cell["command"]): cell["run"] for cell in known if cell["status"] == "finished"}
    kept = {command_of(run): str(run.absolute()) for run in kept_runs(config.out, file.stem)}
    for cell in cells:
        command = without_place(shlex.join(cell.command))
        made = runs.get(command)
        cell.run = made if made and Path(made, "scores.json").exists() else kept.get(command, made)
        if cell.run and Path(cell.run, "scores.json").exists():
            cell.status = "finished"
    print(f"to do      {sum(c.status != 'finished' for c in cells)} of {len(cells)} cells", flush=True)
    if config.dry_run:
        print(*(shlex.join(cell.command) for cell in cells), sep="\n")
        return
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    interrupted = run(config, cells, folder, file)
    for cell in [cell for cell in cells if cell.status == "failed"]:
        print(f"failed: {cell.name}: {cell.error}\n  {folder}/logs/{cell.name}.err", file=sys.stderr)
    left = {cell.status for cell in cells}
    if "waiting" in left:
        print("not all is finished; the same command goes on", file=sys.stderr)
    sys.exit((130 if interrupted else AGAIN) if "waiting" in left else int("failed" in left))


if __name__ == "__main__":
    run_main(main)
