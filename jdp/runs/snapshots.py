"""Policies of a training that are kept on the way: files that `jdp.load_pretrained` opens."""

from pathlib import Path

from jdp.runs.directories import Run
from jdp.runs.records import without_place
from jdp.runs.stores import SUFFIX, write_weights
from jdp.types import PyTree


def snapshot_path(run: Run, update: int) -> Path:
    """Where the snapshot after `update` updates lies, whether or not it is there."""
    return run.path / "snapshots" / f"{update:09d}{SUFFIX}"


def save_snapshot(run: Run, update: int, states: PyTree, phase: str = "agent") -> Path:
    """Writes what `states` `[1, ...]` have learned, without optimisers.

    Raises:
        StorageError: if it cannot be written.
    """
    written = {key: value for key, value in (run.read("config.json") or {}).items() if key != "resumed"}
    written["command"] = without_place(str(written.get("command") or ""))
    path = snapshot_path(run, update)
    path.parent.mkdir(exist_ok=True)
    write_weights(path, {"training_seed": 0, "run": written, "scores": None}, {phase: states})
    return path
