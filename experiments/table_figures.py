"""The figures beside a table: aggregates, profiles, improvement, and what tuning online would give."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from table_cells import Cell
from table_grids import SEEDS_FOR_BOOTSTRAP, by_method, by_task, label
from tables import plain

from jdp import plotting
from jdp.evaluation import (
    bootstrap_interval,
    performance_profile,
    probability_of_improvement,
    score_by_evaluations,
)
from jdp.evaluation.statistics import iqm, mean, median, optimality_gap

CURVES = 8  # methods in a figure of curves: the best ones
EVALUATIONS = 200  # episodes played online


def draw(cells: Sequence[Cell], target: Path) -> list[str]:
    """Draws `cells`, which have one score name, into `target`; the lines that show them in Markdown."""
    unit = cells[0].first["score_name"]
    figures = across_datasets(cells)
    datasets = list(dict.fromkeys(cell.data for cell in cells))
    for data in datasets:
        on = [cell for cell in cells if cell.data == data]
        if (figure := online(on, label(data, datasets))) is not None:
            figures[f"evaluations-{plain(label(data, datasets))}"] = figure
    lines = []
    target.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        stem = f"{plain(unit)}-{name}"
        figure.savefig(target / f"{stem}.png")
        figure.savefig(target / f"{stem}.pdf", metadata={"CreationDate": None})  # the same bytes every time
        lines += [f"![{unit}, {name}]({stem}.png)", ""]
    return lines


def across_datasets(cells: Sequence[Cell]) -> dict[str, Any]:
    """Of the methods with seeds enough on every dataset; nothing where there are not two of them."""
    unit, count = cells[0].first["score_name"], len({cell.data for cell in cells})
    scores = {
        method: by_task(found)
        for method, found in by_method(cells).items()
        if len(found) == count and min(len(cell.seeds) for cell in found.values()) >= SEEDS_FOR_BOOTSTRAP
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


def online(cells: Sequence[Cell], dataset: str) -> Any:
    """Score against online evaluations, of the methods with three policies or more (settings and seeds)."""
    policies: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        policies.setdefault(cell.first["method"], []).extend(cell.episodes)
    policies = {method: found for method, found in policies.items() if len(found) > 2}
    if not policies:
        return None
    unit, behaviour = cells[0].first["score_name"], cells[0].first.get("behaviour")
    values = np.concatenate([scores for found in policies.values() for scores in found])
    scale = float(np.ptp(values)) if unit == "return" else 100.0
    bands = {
        method: score_by_evaluations(found, EVALUATIONS, scale=scale) for method, found in policies.items()
    }
    order = sorted(bands, key=lambda method: -bands[method].estimate[-1])[:CURVES]
    title = f"{dataset}: policy picked of up to 8; band: 95 % of single choices"
    return plotting.evaluations(
        {f"{m} ({len(policies[m])} policies)": bands[m] for m in order},
        behaviour=behaviour,
        score=unit,
        title=title,
    )
