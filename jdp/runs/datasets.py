"""Datasets that a run writes: HDF5, a card, and where they are wanted Minari; each there or made again."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jdp.data.card import dataset_card
from jdp.data.export import save_d4rl, save_minari
from jdp.data.minari import minari_path
from jdp.data.sources import load
from jdp.errors import UserError
from jdp.runs.directories import Run, replace_text
from jdp.types import Json, Spec, Transition

CLAIMED = "minari.json"  # ids of the run's own: what a kill left of them may be thrown away


def dataset_path(run: Run, name: str) -> Path:
    """Where the HDF5 file lies, whether or not it is there."""
    return run.path / "datasets" / f"{name}.hdf5"


def written_card(run: Run, name: str) -> Json | None:
    """The card of a dataset that is there whole, else None: it is written last."""
    path = dataset_path(run, name).with_suffix(".json")
    return json.loads(path.read_text()) if path.exists() else None


def write_dataset(
    run: Run,
    name: str,
    transitions: Transition,
    timeouts: np.ndarray | None,
    *,
    spec: Spec,
    facts: Mapping[str, str],
    minari: str | None = None,
) -> Json:
    """Writes `datasets/<name>.hdf5`, its card as `.md` and `.json`, and the Minari dataset `minari`.

    Arguments are those of `jdp.data.export.save_d4rl`, whose metadata `facts` are. Returns the card.

    Raises:
        UserError: if something cannot be written, or the Minari dataset is there and another's.
    """
    path = dataset_path(run, name)
    save_d4rl(path, transitions, timeouts, spec=spec, metadata=facts)
    data = load(str(path))
    if minari is not None:
        _claim(run, minari)
        about = f"{data.origin.name}; {data.origin.notice}"
        save_minari(
            minari, transitions, timeouts, spec=spec, algorithm=facts.get("d4rl_style"), description=about
        )
    card = dataset_card(data)
    text = f"# {data.origin.name}\n\n```\n{card}\n```\n"
    replace_text(path.with_suffix(".md"), text if minari is None else f"{text}\nMinari: `{minari}`\n")
    found = {**asdict(card), "minari": minari}
    replace_text(path.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    return found


def _claim(run: Run, dataset_id: str) -> None:
    """Says that a Minari dataset is this run's, and removes what a killed process of it has left."""
    claimed: list[str] = run.read(CLAIMED) or []
    if dataset_id in claimed:
        shutil.rmtree(minari_path(dataset_id), ignore_errors=True)
    elif minari_path(dataset_id).exists():
        raise UserError(f"a Minari dataset {dataset_id} is there already, and not of this run; move it away")
    run.write(CLAIMED, [*claimed, dataset_id])
