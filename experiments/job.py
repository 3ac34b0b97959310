"""What a training script opens: its dataset, a run directory, and what every phase needs of both."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import show_download
from options import NOT_IN_HASH
from scoring import behaviour, score_name

import jdp
from jdp import runs
from jdp.data.mapped import map_rows
from jdp.data.stream import Stream
from jdp.devices import distributed


@dataclass(frozen=True)
class Job:
    """What every phase needs: settings, data, where to write, devices, keys by name."""

    config: Any
    data: Any
    run: runs.Run
    mesh: Any
    keys: dict[str, jax.Array]


def load(config: Any) -> Any:
    """The dataset; process 0 goes first, for it may have to download it."""
    where = config.out / "streams" if config.stream else None
    with distributed.main_first("data"):
        return jdp.data.load(
            config.env, source=config.source, env_id=config.env_id, progress=show_download, mapped=where
        )


def opening(config: Any, data: Any, notes: str) -> None:
    """Prints which data, task, devices and preset this is."""
    origin, spec, devices = data.origin, data.spec, jax.devices()
    print(f"dataset    {origin.name}")
    print(f"           {origin.path} ({origin.size / 1e6:.1f} MB, SHA-256 {origin.sha256[:16]}...)")
    if origin.notice:
        print(f"           {origin.notice}")
    print(
        f"           {len(data):,} transitions, {len(data.starts):,} episodes, "
        f"mean return {data.returns.mean():.0f} ({score_name(spec)} {behaviour(data):.1f})"
    )
    print(f"task       {spec.env_id}, {spec.observation_dim} observations, {spec.action_dim} actions")
    print(f"device     {len(devices)} x {devices[0].device_kind}")
    print(f"preset     {config.preset}; {notes}")


def check_task(data: Any) -> None:
    """Raises `UserError` unless the dataset names a task that has its observations and actions."""
    if data.spec.env_id is None:
        raise jdp.UserError(f"{data.origin.name} names no task to evaluate in: give --env-id, e.g. Hopper-v5")
    env = jdp.evaluation.make_env(data.spec.env_id)
    shapes = env.observation_space.shape, env.action_space.shape
    env.close()
    wanted = (data.spec.observation_dim,), (data.spec.action_dim,)
    if shapes != wanted:
        raise jdp.UserError(
            f"{data.spec.env_id} has observations and actions of shapes {shapes}, the dataset {wanted}: "
            "give the task it was collected in with --env-id"
        )


def open_run(
    experiment: str,
    config: Any,
    data: Any,
    not_in_hash: tuple[str, ...] = NOT_IN_HASH,
    facts: Mapping[str, Any] | None = None,
) -> runs.Run:
    """A new run directory, or with `--resume` the unfinished one of the same configuration.

    With `--resume auto`, ends the script where a finished one is there.
    """
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in not_in_hash}
    facts = {
        "dataset": data.origin.name,
        "sha256": data.origin.sha256,
        "spec": dataclasses.asdict(data.spec),
        **(facts or {}),
    }
    where = {"out": config.out, "experiment": experiment, "dataset": config.env, "config": settings}
    resume = config.resume
    if resume == "auto":
        done = distributed.from_main(lambda: str(runs.finished_run(**where, facts=facts) or ""))
        if done:
            print(f"finished   {done}")
            sys.exit(0)
        if not distributed.from_main(lambda: str(runs.unfinished_run(**where) or "")):
            resume = None
    opened = []

    def start_or_resume() -> str:
        run = runs.start_run(**where, facts=facts) if resume is None else resumed(where, resume, facts)
        opened.append(run)
        return str(run.path)

    path = Path(distributed.from_main(start_or_resume))
    run = opened[0] if opened else runs.follow_run(path)
    print(f"run        {path}")
    if not distributed.is_main():
        return run
    sinks = tuple(runs.make_sink(name, run.path, settings) for name in config.log)
    return dataclasses.replace(run, sinks=sinks)


def resumed(where: Mapping[str, Any], which: str, facts: Mapping[str, Any]) -> runs.Run:
    """The unfinished run `which`; "auto" is the newest one."""
    run = runs.resume_run(**where, which="latest" if which == "auto" else which, facts=facts)
    if run.read("scores.json") is not None:
        raise jdp.UserError(f"{run.path} is finished: its table is in {run.path / 'report.txt'}")
    return run


def mapped(job: Job, what: str, names: Sequence[str], write: Callable[[Path], Any]) -> dict[str, np.memmap]:
    """The memory-mapped arrays `names` of this dataset, which `write(folder)` writes where there are none.

    `what` says what they depend on besides the dataset.
    """
    known = f"{job.data.origin.sha256} {job.data.spec} {what}"
    folder = job.config.out / "streams" / hashlib.sha256(known.encode()).hexdigest()[:16]
    with distributed.main_first("stream"):
        if not all((folder / f"{name}.npy").exists() for name in names):
            write(folder)
        return map_rows(folder, names)


def stream_of(lookup: Any, tables: Any, rows: Any) -> Stream:
    """Of which every process reads its own part of each batch."""
    return Stream(lookup, tables, rows, process=distributed.number(), processes=jax.process_count())
