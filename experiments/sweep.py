"""A grid of runs, methods x datasets x seeds x settings, on this machine or on Slurm.

    python experiments/sweep.py                    # the example: two agents on two datasets, minutes
    python experiments/sweep.py readme-planning --dry-run
    python experiments/sweep.py my_grid.toml --slurm --partition gpu --gpus 1

A grid is one small TOML file (docs/sweeps.md); those in experiments/grids/ are known by their names. Each
cell is one command of a training script with some seeds of one setting, trained at once. Interrupt the
sweep whenever you like: the same command goes on, and does not repeat what is finished. What is known of
the cells stands in results/sweeps/<grid>/cells.json, what they print in logs/ beside it;
experiments/table.py --sweep <grid> makes the tables.
"""

import fcntl
import shlex
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import sweep_grid
import tyro
from common import run_main, table
from sweep_costs import Estimate, estimates, shipped
from sweep_launch import Slot, Slurm, slots
from sweep_probe import probe
from sweep_run import Sweep, Work, run, take_up

from jdp.errors import UserError


@dataclass(frozen=True)
class Config:
    """Run a grid of experiments."""

    grid: tyro.conf.Positional[str] = "example"
    """A TOML file, or the name of a shipped grid."""
    dry_run: bool = False
    """Show the cells, their commands, what is finished, and what the rest will take; start nothing."""
    jobs: int | None = None
    """Cells at once; without it one for every two cores or every GPU, on Slurm 256."""
    slurm: bool = False
    """Submit the cells to Slurm as an array job; this process watches them."""
    asked: Annotated[Slurm, tyro.conf.arg(name="")] = field(default_factory=Slurm)
    out: Path = Path("results")
    """Where results are written."""


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    asked = config.asked
    for name, value in (("jobs", config.jobs), ("minutes", asked.minutes), ("cpus", asked.cpus)):
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}: it must be at least 1")
    for name in ("partition", "memory_gb", "account", "setup"):
        if getattr(asked, name) and not config.slurm:
            raise UserError(f"--{name.replace('_', '-')} is an option of Slurm: add --slurm, or leave it out")
    path = sweep_grid.find(config.grid)
    cells = sweep_grid.read(path)
    print(f"grid       {path} ({len(cells)} cells)", flush=True)
    device, configs = probe(cells)
    slurm, places = None, slots(config.jobs, device)
    if config.slurm:
        slurm = asked
        device = {"platform": "gpu" if asked.gpus else "cpu", "kind": None, "count": asked.gpus or 1}
        places = [Slot(tuple(range(asked.cpus)), ("",) * asked.gpus or None)] * (config.jobs or 256)
    folder = config.out / "sweeps" / path.stem
    costs = estimates(cells, configs, device, config.out)
    works = [
        Work(cell.name, cell.command(config.out), minutes(costs[cell.name], places[0])) for cell in cells
    ]
    sweep = Sweep(folder, path, works, places, slurm)
    take_up(sweep)
    if config.dry_run:
        print(plan(sweep, costs))
    print(summary(sweep, costs, device), flush=True)
    if not config.dry_run:
        with alone(folder):
            take_up(sweep)  # anew: another process may have ended since
            signal = run(sweep)
        sys.exit(closing(sweep, signal))


def minutes(cost: Estimate, place: Slot) -> float | None:
    """What a cell takes in its place."""
    return cost.minutes(len(place.gpus or place.cores) or 1, shipped()[0])


@contextmanager
def alone(folder: Path) -> Any:
    """The sweep's lock, which ends with this process."""
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        lock: IO[str] = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another process runs the sweep {folder}: wait for it, or stop it") from error
        yield


def plan(sweep: Sweep, costs: dict[str, Estimate]) -> str:
    """The cells, what is known of them and of their cost, and their commands."""
    rows = [["cell", "status", "minutes", "estimated from"]]
    for work in sweep.works:
        known = "?" if work.minutes is None else f"{work.minutes:.1f}"
        rows.append([work.name, work.status, known, costs[work.name].source])
    commands = "\n".join(shlex.join(work.command) for work in sweep.works)
    return f"\n{table(rows)}\n\n{commands}\n"


def summary(sweep: Sweep, costs: dict[str, Estimate], device: dict[str, Any]) -> str:
    """How much there is to do, what it will take, and how many of the estimates come from where."""
    todo = [work for work in sweep.works if work.status != "finished"]
    place, jobs = sweep.places[0], min(len(sweep.places), max(1, len(todo)))
    unit, count = ("core", len(place.cores) or 1) if place.gpus is None else ("GPU", len(place.gpus))
    unit = "TPU" if device["platform"] == "tpu" else unit
    known = [work.minutes for work in todo if work.minutes is not None]
    longest = max(known, default=0.0)
    wall, hours = max(longest, sum(known) / jobs), sum(known) * count / 60
    about = f"{wall:.0f} minute{'s' * (round(wall) != 1)}" if wall < 90 else f"{wall / 60:.1f} hours"
    where = "Slurm" if sweep.slurm else "this machine"
    at_once = f"{jobs} at once with {count} {unit}{'s' * (count > 1)} each"
    lines = [f"to do      {len(todo)} of {len(sweep.works)} cells, on {where}, {at_once}"]
    if known:
        least = "at least " if len(known) < len(todo) else "about "
        lines.append(f"estimate   {least}{about}, {hours:.2g} {unit}-hours")
        lines.append(f"           {sources([costs[work.name] for work in todo])}")
    elif todo:
        lines.append("estimate   unknown: nothing like it has been measured on such a device")
    return "\n".join(lines)


def sources(costs: list[Estimate]) -> str:
    kinds: dict[str, Callable[[Estimate], bool]] = {
        "from finished runs": lambda c: c.work is not None and not c.source.startswith("costs.toml"),
        "from experiments/grids/costs.toml": lambda c: c.source.startswith("costs.toml"),
        "unknown": lambda c: c.work is None,
    }
    counts = {name: sum(map(test, costs)) for name, test in kinds.items()}
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{found}; scaled by updates x seeds"


def closing(sweep: Sweep, signal: int | None) -> int:
    """Says how it ended; the exit status."""
    failed = [work for work in sweep.works if work.status == "failed"]
    done = sum(work.status == "finished" for work in sweep.works)
    print(
        f"\n{done} of {len(sweep.works)} cells finished, {len(failed)} failed; {sweep.folder / 'cells.json'}"
    )
    for work in failed:
        print(f"failed: {work.name}: {work.error}\n        {sweep.log(work)}.err", file=sys.stderr)
    if signal is not None:
        going = "its jobs go on in Slurm; " if sweep.slurm else ""
        print(f"stopped; {going}the same command goes on", file=sys.stderr)
        return 130 if signal == 2 else 75
    if not failed:
        out = sweep.folder.parent.parent
        where = [] if out == Config.out else ["--out", str(out)]
        print(f"tables     python experiments/table.py --sweep {shlex.join([sweep.folder.name, *where])}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
