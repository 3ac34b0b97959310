"""The curves of runs as small pictures: vector graphics by matplotlib that stand in the page."""

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jdp.runs.curves import SCORE, UNREADABLE, read_curves, summarise

POINTS = 100  # of a curve, at most
MOST = 6  # pictures of a run: the score, losses and errors first
COLOURS = ("#4c8fdd", "#d9605f", "#3fa76a", "#d08c2a", "#9673d3", "#2ca0a8", "#c8609f", "#8a94a0")
GREY = "#7f8894"  # to be read on white and on black


class Picture(NamedTuple):
    """The curves of one metric, a line a phase."""

    metric: str
    uri: str
    said: str  # to those who cannot see it


def curves_of(runs: pd.DataFrame) -> dict[str, list[Picture]]:
    """Pictures of all runs by their path. Scores on the same data and task have the same axis in all."""
    first = runs[runs.path.astype(bool)].drop_duplicates("path")
    found: dict[str, pd.DataFrame] = {}
    for path in first.path:
        try:
            found[path] = summarise(read_curves(path), POINTS)
        except UNREADABLE:  # the run's row says what is wrong with its files
            continue
    place = {run.path: (run.dataset, run.sha256, run.task, run.score_name) for run in first.itertuples()}
    level = dict(zip(first.path, first.behaviour, strict=True))
    spans: dict[tuple[object, ...], tuple[float, float]] = {}
    for path, curves in found.items():
        values = curves["mean"][curves.metric == SCORE].dropna()
        if len(values):
            low, high = spans.get(place[path], (np.inf, -np.inf))
            spans[place[path]] = min(low, values.min()), max(high, values.max())
    return {path: list(_pictures(c, spans.get(place[path]), level[path])) for path, c in found.items()}


def _pictures(
    curves: pd.DataFrame, span: tuple[float, float] | None, behaviour: float | None
) -> Iterator[Picture]:
    """The score of all phases in one picture, then the metrics of each phase, losses and errors first."""
    by_metric = curves.assign(
        title=curves.metric.where(curves.metric == SCORE, curves.metric + ", " + curves.phase)
    )
    groups = {str(title): lines for title, lines in by_metric.groupby("title", sort=False)}
    rank = {title: (title != SCORE, "loss" not in title and "error" not in title) for title in groups}
    for title in sorted(groups, key=lambda t: rank[t])[:MOST]:
        lines = groups[title]
        last = lines.groupby("phase", sort=False)["mean"].last()
        said = "; ".join(f"{phase} ends at {value:.4g}" for phase, value in last.items())
        is_score = title == SCORE
        drawn = _svg(lines, span if is_score else None, behaviour if is_score else None)
        yield Picture(title, drawn, f"{title} by step: {said}")


def _svg(lines: pd.DataFrame, span: tuple[float, float] | None, behaviour: float | None) -> str:
    figure = Figure(figsize=(4.2, 2.3))
    axis = figure.add_axes((0.14, 0.17, 0.83, 0.78))
    several = lines.phase.nunique() > 1
    for i, (phase, line) in enumerate(lines.groupby("phase", sort=False)):
        colour = COLOURS[i % len(COLOURS)]
        axis.fill_between(line.step, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        marker = "o" if len(line) == 1 else None
        axis.plot(line.step, line["mean"], color=colour, linewidth=1.6, marker=marker, label=phase)
    mean = lines["mean"].dropna()
    if span is not None:
        pad = 0.1 * (span[1] - span[0]) or 1.0
        low, high = (min(span[0], behaviour), max(span[1], behaviour)) if behaviour is not None else span
        axis.set_ylim(low - pad, high + pad)
    elif len(mean) and mean.min() > 0 and mean.max() > 50 * mean.min():
        axis.set_yscale("log")
    if behaviour is not None:
        axis.axhline(behaviour, color=GREY, linewidth=0.9, linestyle="--", label="behaviour policy")
    if several or behaviour is not None:
        axis.legend(frameon=False, fontsize=7, labelcolor=GREY)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(GREY)
    axis.tick_params(which="both", labelsize=7.5, colors=GREY)
    axis.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jdp", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
