"""What a run logged (`metrics.jsonl`) as a tidy pandas table, and as curves with few points."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from jdp.errors import UserError
from jdp.evaluation.statistics import interval
from jdp.evaluation.summary import seed_scores
from jdp.runs.logs import UNREADABLE, logged
from jdp.runs.settings import task_of
from jdp.types import Json, Spec

POINTS = 200  # of a curve, at most
SCORE = "score"


def read_curves(run: str | Path) -> pd.DataFrame:
    """Everything a run logged, one value a row: `phase`, `metric`, `step`, `seed`, `value`.

    Phases of one seed each ("diffuser 0", "diffuser 1") are one phase of many seeds. The metric "score" is
    that of the evaluations in training, as `jdp.evaluation.seed_scores` has it.
    """
    try:
        spec = task_of(json.loads((Path(run) / "config.json").read_text()))
    except (*UNREADABLE, UserError):
        spec = Spec(0, 0)  # whose scores are returns
    rows = []
    for record in logged(Path(run) / "metrics.jsonl"):
        phase, step = record["phase"], record["step"]
        if phase == "evaluation":  # of the last checkpoint alone: its steps count seeds
            continue
        alone = re.search(r" (\d+)$", phase)
        name = phase.removesuffix("/evaluation").removesuffix(alone[0] if alone else "")
        for metric, values in _metrics(record, spec):
            seeds = enumerate(values, start=int(alone[1]) if alone else 0)
            rows += [(name, metric, step, seed, value) for seed, value in seeds]
    return pd.DataFrame(rows, columns=["phase", "metric", "step", "seed", "value"])


def _metrics(record: Json, spec: Spec) -> Iterator[tuple[str, list[float]]]:
    """`(metric, one value a seed)` of a record; of an evaluation the score alone."""
    if record["phase"].endswith("/evaluation"):
        yield SCORE, seed_scores(record, spec).tolist()
        return
    for metric, value in record.items():
        if metric not in ("phase", "step", "seconds") and not isinstance(value, str | dict):
            yield metric, np.asarray(value, np.float64).ravel().tolist()


def summarise(curves: pd.DataFrame, points: int = POINTS) -> pd.DataFrame:
    """Curves of at most `points` steps: `phase`, `metric`, `step`, `mean`, `low`, `high`.

    The bounds of the score are Student's t over the seeds; those of other metrics are the range over seeds
    and over the steps that a point stands for, so that no spike is lost.
    """
    found = []
    for (phase, metric), lines in curves.groupby(["phase", "metric"], sort=False):
        steps = np.unique(lines.step)
        if metric == SCORE:
            chosen = steps[np.unique(np.linspace(0, len(steps) - 1, points).astype(int))]
            by_step = lines[lines.step.isin(chosen)].groupby("step").value
            bounds = pd.DataFrame({step: interval(values) for step, values in by_step}).T
        else:
            parts = np.array_split(steps, min(points, len(steps)))
            last = np.repeat([part[-1] for part in parts], [len(part) for part in parts])
            finite = lines.value.where(np.isfinite(lines.value))
            bounds = finite.groupby(last[np.searchsorted(steps, lines.step)]).agg(["mean", "min", "max"])
        bounds.columns = ["mean", "low", "high"]
        found.append(bounds.rename_axis("step").reset_index().assign(phase=str(phase), metric=str(metric)))
    columns = ["phase", "metric", "step", "mean", "low", "high"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def by_metric(curves: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of `summarise` by what a picture shows: the score of all phases, then each phase's metrics.

    Losses and errors come first of these.
    """
    titles = curves.metric.where(curves.metric == SCORE, curves.metric + ", " + curves.phase)
    found = {str(title): lines for title, lines in curves.groupby(titles, sort=False)}
    rank = {title: (title != SCORE, "loss" not in title and "error" not in title) for title in found}
    return {title: found[title] for title in sorted(found, key=lambda t: rank[t])}
