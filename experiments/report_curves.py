"""What a run logged, as the curves of report.py: few points, a mean and bounds at each."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scoring import scores_of

from jdp.evaluation import interval

POINTS = 200  # at most, of a curve
SCORE = "score"
Row = dict[str, Any]


def logged(path: Path) -> Iterable[Row]:
    """The whole lines of `metrics.jsonl`; one half-written, as a kill leaves it, is passed over."""
    if not path.exists():
        return
    with path.open(errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "phase" in record and "step" in record:
                yield record | {"phase": str(record["phase"])}


def minutes(records: list[Row], others: set[str]) -> float | None:
    """Minutes of training as logged, without that of the arms in `others`; as `phases.training_seconds`."""
    training = [
        spent
        for record in records
        if record["phase"] not in others and not record["phase"].endswith("evaluation")
        if (spent := number(record.get("seconds"))) is not None
    ]
    return sum(training) / 60 if training else None


def curves(records: Iterable[Row], spec: Mapping[str, Any]) -> list[Row]:
    """Every metric of every phase over the steps: `phase`, `metric`, `x`, `mean`, `low`, `high`, `seeds`.

    Phases of one seed each ("diffuser 0", "diffuser 1") are one phase of many seeds.
    """
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for record in records:
        phase, step = record["phase"], int(record["step"])
        if phase == "evaluation":  # of the last checkpoint alone: its steps count seeds
            continue
        name = re.sub(r" \d+$", "", phase.removesuffix("/evaluation"))
        for metric, values in metrics_of(record, spec):
            found.setdefault((name, metric), {}).setdefault(step, []).extend(values)
    return [
        {"phase": phase, "metric": metric, **(score_line if metric == SCORE else loss_line)(steps)}
        for (phase, metric), steps in found.items()
    ]


def metrics_of(record: Row, spec: Mapping[str, Any]) -> Iterable[tuple[str, list[float]]]:
    """`(metric, one value a seed)` of a record; of an evaluation the score alone."""
    if record["phase"].endswith("/evaluation"):
        scale = SimpleNamespace(score_range=spec.get("score_range"))
        yield SCORE, [float(scores_of(episodes, scale).mean()) for episodes in record["returns"]]
        return
    for metric, value in record.items():
        if metric not in ("phase", "step", "seconds") and not isinstance(value, str | dict):
            yield str(metric), [float(v) for v in np.asarray(value, np.float64).ravel()]


def score_line(steps: dict[int, list[float]]) -> Row:
    """Mean and Student's t interval at each step, and the line of every seed."""
    order = sorted(steps)
    chosen = [order[i] for i in np.unique(np.linspace(0, len(order) - 1, POINTS).astype(int))]
    bounds = [interval(steps[x]) for x in chosen]
    whole = len({len(steps[x]) for x in chosen}) == 1
    seeds = zip(*(steps[x] for x in chosen), strict=True) if whole else ()
    return line(chosen, bounds) | {"seeds": [rounded(seed) for seed in seeds]}


def loss_line(steps: dict[int, list[float]]) -> Row:
    """Mean and range over the seeds, and over neighbouring steps where there are too many to draw."""
    order = np.array(sorted(steps))
    bins = np.array_split(order, min(POINTS, len(order)))
    bounds = []
    for part in bins:
        values = np.concatenate([steps[int(x)] for x in part])
        values = values[np.isfinite(values)]
        bounds.append((values.mean(), values.min(), values.max()) if len(values) else (np.nan,) * 3)
    return line([int(part[-1]) for part in bins], bounds) | {"seeds": []}


def line(x: list[int], bounds: Iterable[tuple[float, float, float]]) -> Row:
    mean, low, high = (rounded(values) for values in zip(*bounds, strict=True))
    return {"x": x, "mean": mean, "low": low, "high": high}


def rounded(values: Iterable[float]) -> list[float | None]:
    """Five digits, which is all a curve shows; None for what is not finite."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]


def number(value: Any) -> float | None:
    """`value` where it is a finite number, else None."""
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None
