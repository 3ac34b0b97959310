"""The figures beside a table: aggregates, profiles, improvement, learning, what tuning online would give."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jdp import plotting
from jdp.evaluation import (
    bootstrap_interval,
    performance_profile,
    probability_of_improvement,
    score_by_evaluations,
)
from jdp.evaluation.statistics import iqm, mean, median, optimality_gap
from jdp.runs.curves import SCORE, read_curves
from jdp.runs.tables import SEEDS_FOR_BOOTSTRAP, columns_of, rows_of, tasks

CURVES = 8  # methods in a figure of curves: the best ones
EVALUATIONS = 200  # episodes played online


def table_figures(cells: pd.DataFrame) -> dict[str, Figure]:
    """Figures of `cells` (`pool_seeds`), which have one score name, by name."""
    found = across_datasets(cells)
    for dataset, alike in cells.groupby(columns_of(cells), sort=False):
        if (figure := online(alike, str(dataset))) is not None:
            found[f"evaluations-{dataset}"] = figure
        if learned := while_acting(alike):
            before = alike.dropna(subset=["before"])
            start = dict(zip(before.label.astype(str), before.before, strict=True))
            found[f"learning-{dataset}"] = plotting.learning(
                learned, start=start, score=alike.score_name.iloc[0], title=str(dataset)
            )
    return found


def while_acting(cells: pd.DataFrame) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """By label, steps of the task `[n]` and scores `[n, S]` then, of cells that learned while they acted.

    Of pooled runs it is the first one's, with the steps before its first update spread over all.
    """
    found = {}
    for label, path, steps, updates in zip(cells.label, cells.path, cells.steps, cells.updates, strict=True):
        if pd.isna(steps) or not (Path(str(path)) / "metrics.jsonl").exists():
            continue
        curves = read_curves(path)
        scored = curves[(curves.metric == SCORE) & (curves.phase != "base")]
        wide = scored.pivot_table(index="step", columns="seed", values="value").dropna()
        if len(wide):
            found[str(label)] = wide.index.to_numpy() * int(steps) / int(updates), wide.to_numpy()
    return found


def across_datasets(cells: pd.DataFrame) -> dict[str, Figure]:
    """Of the methods with seeds enough on every dataset; nothing where there are not two of them."""
    unit, count = cells.score_name.iloc[0], columns_of(cells).nunique()
    scores = {
        str(method): tasks(found)
        for method, found in cells.groupby(rows_of(cells), sort=False)
        if len(found) == count and found.seeds.min() >= SEEDS_FOR_BOOTSTRAP
    }
    if len(scores) < 2 or unit == "return":
        return {}
    order = sorted(scores, key=lambda method: -float(iqm(scores[method])))
    scores = {method: scores[method] for method in order}
    over, *others = order
    title = f"{count} dataset{'s' * (count > 1)}, 95 % bootstrap over seeds"
    statistics = {"IQM": iqm, "mean": mean, "median": median, "optimality gap": optimality_gap}
    panels = {
        name: {method: bootstrap_interval(s, statistic=statistic) for method, s in scores.items()}
        for name, statistic in statistics.items()
    }
    values = np.concatenate([runs for s in scores.values() for runs in s.values()])
    at = np.linspace(min(0.0, values.min()), 1.02 * values.max(), 401)
    bands = {method: performance_profile(scores[method], at) for method in order[:CURVES]}
    better = {other: probability_of_improvement(scores[over], scores[other]) for other in others}
    best = f", the {CURVES} best of {len(order)} methods" if len(order) > CURVES else ""
    return {
        "aggregates": plotting.aggregates(panels, title=f"{unit}, {title}"),
        "profiles": plotting.profiles(at, bands, score=unit, title=f"{title}{best}"),
        "improvement": plotting.improvement(better, over=over, title=title),
    }


def online(cells: pd.DataFrame, dataset: str) -> Figure | None:
    """Score against online evaluations, of the methods with three policies or more (settings and seeds)."""
    policies = {
        m: np.concatenate(found.episodes_of.tolist()) for m, found in cells.groupby("method", sort=False)
    }
    policies = {str(method): found for method, found in policies.items() if len(found) > 2}
    if not policies:
        return None
    first = cells.iloc[0]
    values = np.concatenate([found.ravel() for found in policies.values()])
    scale = float(np.ptp(values)) if first.score_name == "return" else 100.0
    bands = {
        method: score_by_evaluations(list(found), EVALUATIONS, scale=scale)
        for method, found in policies.items()
    }
    order = sorted(bands, key=lambda method: -bands[method].estimate[-1])[:CURVES]
    return plotting.evaluations(
        {f"{m} ({len(policies[m])} policies)": bands[m] for m in order},
        behaviour=first.behaviour,
        score=first.score_name,
        title=f"{dataset}: policy picked of up to 8; band: 95 % of single choices",
    )


def cost_figure(cells: pd.DataFrame, *, score: str) -> Figure:
    """Score beside the time of a decision, of cells on one dataset; `score` names the axis."""
    columns = cells[["label", "latency", "score", "low", "high"]].itertuples(index=False)
    points = {str(label): tuple(map(float, values)) for label, *values in columns}
    return plotting.cost(points, score=score, title=cells.dataset.iloc[0])  # type: ignore[arg-type]
