"""Run directories: `results/<experiment>/<dataset>/<run>/` with config, metrics and checkpoints."""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from jdp.errors import UserError
from jdp.training.sinks import Sink

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "gymnasium",
    "mujoco",
    "minari",
    "numpy",
)


def to_json(value: Any) -> Any:
    """Arrays and numpy scalars as lists and numbers, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if hasattr(value, "tolist"):
        return to_json(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hex digits of the SHA-256 of a configuration."""
    return hashlib.sha256(json.dumps(to_json(config), sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Run:
    """A run directory, held by this process alone while `lock` is open."""

    path: Path
    lock: IO[str]
    sinks: tuple[Sink, ...] = ()

    def folder(self, name: str) -> Path:
        return self.path / "checkpoints" / name

    def log(self, phase: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one line to `metrics.jsonl`, and tells the sinks."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"phase": phase, "step": step, **to_json(metrics)}) + "\n")
        for sink in self.sinks:
            sink(phase, step, metrics)

    def records(self, phase: str | None = None) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, of one phase or all; a half-written last line is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return [r for r in found if phase is None or r["phase"] == phase]

    def cut(self, phase: str, step: int) -> None:
        """Drops what `phase` logged after `step`: it will be made again."""
        self._rewrite([r for r in self.records() if r["phase"] != phase or r["step"] <= step])

    def _rewrite(self, records: list[dict[str, Any]]) -> None:
        replace_text(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))

    def write(self, name: str, value: Any) -> None:
        """`value` as the JSON file `name`, whole or not at all."""
        replace_text(self.path / name, json.dumps(to_json(value), indent=1) + "\n")

    def read(self, name: str) -> Any | None:
        """The JSON file `name`, or None."""
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else None


def replace_text(path: Path, text: str) -> None:
    """Writes a text file under another name first, so that a reader sees the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def provenance() -> dict[str, Any]:
    """What a number depends on besides the configuration: versions, commit, machine, devices."""
    import jax

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": shlex.join(["python", *sys.argv]),
        "packages": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "commit": git.stdout.strip() or None,
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "cores": os.cpu_count(),
    }


def _hold(path: Path) -> Run:
    lock = (path / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"run {path} is in use by another process: wait for it, or stop it") from error
    return Run(path, lock)


def _parent(out: str | Path, experiment: str, dataset: str) -> Path:
    """Where the runs of an experiment on a dataset lie; a path or a Minari id becomes one plain name."""
    return Path(out) / experiment / re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-")


def start_run(
    out: str | Path, experiment: str, dataset: str, config: Mapping[str, Any], facts: Mapping[str, Any]
) -> Run:
    """A new run directory with its `config.json`; `<run>` is the start time and the config's hash.

    Raises:
        UserError: if the directory cannot be made or written.
    """
    parent = _parent(out, experiment, dataset)
    digest = config_hash(config)
    base = f"{time.strftime('%Y%m%d-%H%M%S')}-{digest}"
    names = [base, *(f"{base}-{i}" for i in range(2, 100))]
    path = next(p for p in (parent / name for name in names) if not p.exists())
    try:
        path.mkdir(parents=True)
        run = _hold(path)
        run.write("config.json", {"config": config, "hash": digest, **facts, **provenance()})
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}; choose another --out") from error
    return run


def resume_run(
    out: str | Path,
    experiment: str,
    dataset: str,
    config: Mapping[str, Any],
    which: str,
    facts: Mapping[str, Any],
) -> Run:
    """The unfinished run `which` (a path), or the newest one of the same config for "latest".

    A run is finished when it has its `scores.json`. `facts` (the dataset's SHA-256 and the like) must
    be those that the run began with.

    Raises:
        UserError: if there is none, it is of another configuration or other data, or it is in use.
    """
    if which == "latest":
        parent = _parent(out, experiment, dataset)
        found = sorted(parent.glob(f"*-{config_hash(config)}*"), key=lambda p: p.name)
        open_runs = [p for p in found if (p / "config.json").exists() and not (p / "scores.json").exists()]
        if not open_runs:
            raise UserError(f"no unfinished run of this configuration in {parent}: start without --resume")
        path = open_runs[-1]
    else:
        path = Path(which)
        if not (path / "config.json").exists():
            raise UserError(
                f"{path} is no run directory (it has no config.json): name one, or plain --resume"
            )
    began = json.loads((path / "config.json").read_text())
    differ = _differences(began["config"], to_json(config)) + [
        key for key, value in facts.items() if began.get(key) != to_json(value)
    ]
    if differ:
        raise UserError(
            f"{path} has another configuration ({', '.join(differ[:4])}): resume with its own flags"
        )
    run = _hold(path)
    run._rewrite(run.records())  # else the next line would be joined to a half-written last one
    return run


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(set(old) | set(new))
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}".strip("."))]
    return [] if old == new else [f"{name}: {old} there, {new} here"]
