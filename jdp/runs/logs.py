"""What a run logged (`metrics.jsonl`), line by line; tables and curves of it are `jdp.runs.curves`."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from jdp.types import Json

# What a damaged file can raise while it is read.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


def logged(path: str | Path) -> Iterator[Json]:
    """The whole lines of `metrics.jsonl`; one half-written, as a kill leaves it, is passed over."""
    path = Path(path)
    if not path.exists():
        return
    with path.open(errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
                yield record | {"phase": str(record["phase"]), "step": int(record["step"])}
            except UNREADABLE:
                continue


def training_minutes(run: str | Path, others: Collection[str] = ()) -> float | None:
    """Minutes of training as logged, without those of the phases in `others`; None where none is logged."""
    spent = [
        seconds
        for record in logged(Path(run) / "metrics.jsonl")
        if record["phase"] not in others and not record["phase"].endswith("evaluation")
        if isinstance(seconds := record.get("seconds"), int | float) and np.isfinite(seconds)
    ]
    return sum(spent) / 60 if spent else None
