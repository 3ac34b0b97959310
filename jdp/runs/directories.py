"""Run directories: `results/<experiment>/<dataset>/<run>/` with config, metrics and checkpoints."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from jdp.devices import distributed
from jdp.errors import StorageError, UserError
from jdp.runs.provenance import changes, check_settings_of_jax, provenance
from jdp.runs.sinks import Sink
from jdp.types import Json, Logged


def to_json(value: object) -> Any:
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


def config_hash(config: Json) -> str:
    """Eight hex digits of the SHA-256 of a configuration."""
    return hashlib.sha256(json.dumps(to_json(config), sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Run:
    """A run directory, held by this process alone while `lock` is open.

    Where many processes make one run, `path` is the directory itself on process 0 alone; on the others it is
    a copy of their own, thrown away at the end (`follow_run`). The checkpoints are everybody's.
    """

    path: Path
    lock: IO[str]
    sinks: tuple[Sink, ...] = ()
    shared: Path | None = None  # the run directory, where `path` is a copy
    notice: str = ""  # what is other than when the run began, where it goes on

    def folder(self, name: str) -> Path:
        return (self.shared or self.path) / "checkpoints" / name

    def log(self, phase: str, step: int, metrics: Logged) -> None:
        """Appends one line to `metrics.jsonl`, and tells the sinks.

        Raises:
            StorageError: if it cannot be written, for instance to a full disk.
        """
        with writing(path := self.path / "metrics.jsonl"), path.open("a") as file:
            file.write(json.dumps({"phase": phase, "step": step, **to_json(metrics)}) + "\n")
        for sink in self.sinks:
            sink(phase, step, metrics)

    def records(self, phase: str | None = None) -> list[Json]:
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

    def _rewrite(self, records: list[Json]) -> None:
        replace_text(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))

    def write(self, name: str, value: object) -> None:
        """`value` as the JSON file `name`, whole or not at all."""
        replace_text(self.path / name, json.dumps(to_json(value), indent=1) + "\n")

    def read(self, name: str) -> Any | None:
        """The JSON file `name`, or None."""
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {path} ({reason}): make room and add --resume") from error


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that is written under another name first, so that a reader sees the old one or the new.

    Raises:
        StorageError: if it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file as `replacing` does."""
    with replacing(path) as file:
        file.write(text)


def _hold(path: Path) -> Run:
    lock = (path / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"run {path} is in use by another process: wait for it, or stop it") from error
    return Run(path, lock)


def dataset_folder(dataset: str) -> str:
    """The name of a folder for a dataset: a path or an id as one plain name.

    It begins with a letter or digit. A hash tells names apart of which letters outside ASCII were left out.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-._")
    if dataset.isascii() and plain:
        return plain
    return "-".join(filter(None, (plain, hashlib.sha256(dataset.encode()).hexdigest()[:8])))


def _parent(out: str | Path, experiment: str, dataset: str) -> Path:
    """Where the runs of an experiment on a dataset lie."""
    return Path(out).expanduser() / experiment / dataset_folder(dataset)


def start_run(out: str | Path, experiment: str, dataset: str, config: Json, facts: Json) -> Run:
    """A new run directory with its `config.json`; `<run>` is the start time and the config's hash.

    Raises:
        UserError: if the directory cannot be made or written.
    """
    parent = _parent(out, experiment, dataset)
    digest = config_hash(config)
    path = _made(parent, f"{time.strftime('%Y%m%d-%H%M%S')}-{digest}")
    try:
        run = _hold(path)
        run.write("config.json", {"config": config, "hash": digest, **facts, **provenance()})
    except (OSError, StorageError) as error:
        shutil.rmtree(path, ignore_errors=True)  # it is ours, and nothing to go on with
        raise _not_writable(path, error) from error
    return run


def _made(parent: Path, base: str) -> Path:
    """A directory that this process made: `base`, or that name with a number where another was first."""
    for name in (base, *(f"{base}-{i}" for i in range(2, 1000))):
        path = parent / name
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError as error:
            if not path.exists():  # something else is in the way of the parents
                raise _not_writable(path, error) from error
        except OSError as error:
            raise _not_writable(path, error) from error
    raise UserError(f"{parent} has a thousand runs that began in one second: choose another --out")


def _not_writable(path: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"cannot write to {path}: {reason}; choose another --out")


def finished_run(out: str | Path, experiment: str, dataset: str, config: Json, facts: Json) -> Path | None:
    """The newest run of the same configuration and data that has its `scores.json`, or None."""
    for path in reversed(_runs_of(_parent(out, experiment, dataset), config)):
        if (path / "scores.json").exists() and not _other_facts(_config_of(path), facts):
            return path
    return None


def unfinished_run(out: str | Path, experiment: str, dataset: str, config: Json) -> Path | None:
    """The newest run of the same configuration that has no `scores.json`, or None."""
    found = _runs_of(_parent(out, experiment, dataset), config)
    return next((path for path in reversed(found) if not (path / "scores.json").exists()), None)


def _runs_of(parent: Path, config: Json) -> list[Path]:
    """Those of a configuration, oldest first."""
    found = sorted(parent.glob(f"*-{config_hash(config)}*"), key=lambda p: p.name)
    return [path for path in found if (path / "config.json").exists()]


def _config_of(path: Path) -> Json:
    return json.loads((path / "config.json").read_text())


def resume_run(
    out: str | Path,
    experiment: str,
    dataset: str,
    config: Json,
    which: str,
    facts: Json,
) -> Run:
    """The unfinished run `which` (a path), or the newest one of the same config for "latest".

    `facts` (the dataset's SHA-256 and the like) must be those that the run began with, and so must JAX's
    settings. Every process is recorded in `config.json` (the first at its top, the others in "resumed"), and
    `notice` of the run says which packages, devices or cores are others: digits may then change.

    Raises:
        UserError: if there is none, it is of another configuration or other data, it began under other
            settings of JAX, or it is in use.
    """
    if which == "latest":
        found = unfinished_run(out, experiment, dataset, config)
        if found is None:
            parent = _parent(out, experiment, dataset)
            raise UserError(f"no unfinished run of this configuration in {parent}: start without --resume")
        path = found
    else:
        path = Path(which).expanduser()
        if not (path / "config.json").exists():
            raise UserError(
                f"{path} is no run directory (it has no config.json): name one, or plain --resume"
            )
    began = _config_of(path)
    if differ := _differences(began["config"], to_json(config)):
        raise UserError(
            f"{path} has another configuration ({', '.join(differ[:4])}): resume with its own flags"
        )
    if differ := _other_facts(began, facts):
        named = ", ".join(
            f"{key}: {_short(began.get(key))} there, {_short(facts[key])} here" for key in differ
        )
        raise UserError(f"{path} began with other data ({named}): put those back, or start without --resume")
    now = provenance()
    check_settings_of_jax(path, began, now)
    run = _hold(path)
    run._rewrite(run.records())  # else the next line would be joined to a half-written last one
    run.write("config.json", {**began, "resumed": [*began.get("resumed", []), now]})
    return replace(run, notice=changes(began, now))


def follow_run(path: Path) -> Run:
    """The run that process 0 opened at `path`, as another process has it: a copy of all but checkpoints."""
    copy = distributed.scratch()
    ignored = shutil.ignore_patterns("checkpoints", "figures", ".lock", "*.part")
    shutil.copytree(path, copy, ignore=ignored, dirs_exist_ok=True)
    return Run(copy, (copy / ".lock").open("w"), shared=path)


def _other_facts(began: Json, facts: Json) -> list[str]:
    # What is None now was not asked when an older run began.
    return [key for key, value in facts.items() if _differences(began.get(key), to_json(value))]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _differences(old: object, new: object, name: str = "") -> list[str]:
    if isinstance(new, Mapping) and (old is None or isinstance(old, Mapping)):
        old = old or {}
        keys = sorted(set(old) | set(new))
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}".strip("."))]
    return [] if old == new else [f"{name}: {old} there, {new} here"]
