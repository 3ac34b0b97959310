"""Trained models in small files: those that come with jdp, and your own; `load_pretrained` opens them."""

from collections.abc import Sequence
from pathlib import Path

import jax

from jdp.errors import UserError
from jdp.runs.load import LoadedRun, load_pretrained
from jdp.runs.stores import find, names, write_weights
from jdp.types import Json

__all__ = ["find", "load_pretrained", "names", "save_pretrained"]


def save_pretrained(
    path: str | Path, run: LoadedRun, *, seed: int = 0, phases: Sequence[str] | None = None
) -> Json:
    """Writes what one seed of `run` has learned to the file `path`, without optimisers; returns its card.

    Args:
        phases: which of the run's models: names of `run.states`, `.diffusers` and `.world_models`; None: all.

    Raises:
        UserError: for an unknown phase or seed, or if `path` is a folder.
        StorageError: if it cannot be written.
    """
    states = {name: jax.tree.map(lambda x: x[None], run.state(seed, name)) for name in run.states}
    diffusers = {
        name: {"state": found.state, "normaliser": found.normaliser} for name, found in run.diffusers.items()
    }
    known = states | diffusers | {name: found.state for name, found in run.world_models.items()}
    chosen = list(known) if phases is None else list(phases)
    if unknown := [name for name in chosen if name not in known]:
        raise UserError(f"{run.path} has trained no {unknown[0]!r}: choose of {', '.join(known)}")
    # Of the machine it was trained on the file names no folder.
    written = {name: value for name, value in run.written.items() if name not in ("diffuser_from", "resumed")}
    written["command"] = run.command
    written["config"] = run.config | {"seeds": 1}
    card = {"training_seed": seed, "run": written, "scores": run.scores}
    return write_weights(Path(path), card, {name: known[name] for name in chosen})
