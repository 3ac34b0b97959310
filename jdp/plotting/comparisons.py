"""Methods beside each other over tasks and seeds: aggregates, profiles, improvement, tuning online."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter, StrMethodFormatter

from jdp.evaluation.statistics import Band, Interval
from jdp.plotting.figures import _figure, _tidy

CYCLE = ("#4878a8", "#c44e52", "#6aa56e", "#dd9a3c", "#8172b3", "#404040", "#937860", "#d98cb3")
BEST = CYCLE[0]
DECADE = 10


def aggregates(panels: Mapping[str, Mapping[str, Interval]], *, title: str) -> Figure:
    """One panel a statistic, one line a method: the estimate and its interval.

    `panels[statistic][method]`, with the same methods in every panel.
    """
    methods = list(next(iter(panels.values())))
    figure = _figure(1.2 + 1.7 * len(panels), 0.9 + 0.22 * len(methods))
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axis, (statistic, found) in zip(axes, panels.items(), strict=True):
        _dots(axis, found)
        _tidy(axis, statistic, "")
        axis.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        axis.set_axisbelow(True)
    figure.suptitle(title, fontsize=8)
    return figure


def improvement(found: Mapping[str, Interval], *, over: str, title: str) -> Figure:
    """The probability that the method `over` beats each of the others, and its interval."""
    figure = _figure(3.6, 0.9 + 0.22 * len(found))
    axis = figure.subplots()
    axis.axvline(0.5, color="#909090", linewidth=0.8, linestyle="--")
    _dots(axis, found)
    axis.set_xlim(-0.02, 1.02)
    _tidy(axis, f"P(a run of {over} beats one of it)", "")
    figure.suptitle(title, fontsize=8)
    return figure


def profiles(at: np.ndarray, bands: Mapping[str, Band], *, score: str, title: str) -> Figure:
    """The share of runs above every score: `at` `[K]`, a curve and pointwise bounds a method."""
    figure = _figure(5.4, 2.8)
    axis = figure.subplots()
    _bands(axis, at, bands)
    axis.set_ylim(-0.02, 1.02)
    _tidy(axis, score, "share of runs above it")
    _legend(figure, axis)
    figure.suptitle(title, fontsize=8)
    return figure


def evaluations(bands: Mapping[str, Band], *, behaviour: float | None, score: str, title: str) -> Figure:
    """The score of the policy that is picked after so many online episodes, a curve and bounds a method.

    `behaviour` is the mean score of the dataset's own episodes.
    """
    figure = _figure(5.4, 2.8)
    axis = figure.subplots()
    length = len(next(iter(bands.values())).estimate)
    _bands(axis, np.arange(1, length + 1), bands)
    if behaviour is not None:
        axis.axhline(behaviour, color="#909090", linewidth=0.8, linestyle="--", label="behaviour policy")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    _tidy(axis, "episodes played online to choose a policy", score)
    _legend(figure, axis)
    figure.suptitle(title, fontsize=8)
    return figure


def learning(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, start: Mapping[str, float], score: str, title: str
) -> Figure:
    """The score against steps of the task, of methods that learn while they act.

    `curves[method]` is (steps `[n]`, scores `[n, S]`): lines are means over seeds, shades the least and the
    greatest. `start[method]` is its score before it learned, of those that have one.
    """
    figure = _figure(5.4, 2.8)
    axis = figure.subplots()
    for i, (method, (steps, scores)) in enumerate(curves.items()):
        colour, style = CYCLE[i % len(CYCLE)], "-" if i < len(CYCLE) else "--"
        axis.plot(
            steps, scores.mean(1), style, color=colour, linewidth=1.4, marker=".", markersize=4, label=method
        )
        axis.fill_between(steps, scores.min(1), scores.max(1), color=colour, alpha=0.1, linewidth=0)
    for before in sorted({round(start[method], 1) for method in curves if method in start}):
        which = [method for method in curves if round(start.get(method, np.nan), 1) == before]
        those = ", ".join(which) if len(which) <= 2 else "the others"
        said = "before" if len(which) == len(curves) else f"before, {those}"
        grey = "#909090" if len(which) > 1 else CYCLE[list(curves).index(which[0]) % len(CYCLE)]
        axis.axhline(before, color=grey, linewidth=0.8, linestyle="--", label=said)
    every = np.concatenate([steps for steps, _ in curves.values()])
    if every.max() > DECADE * every.min():
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _tidy(axis, "steps of the task a seed", score)
    _legend(figure, axis)
    figure.suptitle(title, fontsize=8)
    return figure


def _dots(axis: Axes, found: Mapping[str, Interval]) -> None:
    """A line a method, the first on top."""
    for row, (estimate, low, high) in enumerate(found.values()):
        axis.plot([low, high], [row, row], color=BEST, linewidth=3.5, alpha=0.35, solid_capstyle="butt")
        axis.plot([estimate], [row], "|", color=BEST, markersize=9, markeredgewidth=1.8)
    axis.set_yticks(range(len(found)), list(found))
    axis.set_ylim(len(found) - 0.5, -0.5)


def _bands(axis: Axes, at: np.ndarray, bands: Mapping[str, Band]) -> None:
    for i, (method, band) in enumerate(bands.items()):
        colour, style = CYCLE[i % len(CYCLE)], "-" if i < len(CYCLE) else "--"
        axis.plot(at, band.estimate, color=colour, linestyle=style, linewidth=1.4, label=method)
        axis.fill_between(at, band.low, band.high, color=colour, alpha=0.1, linewidth=0)


def _legend(figure: Figure, axis: Axes) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=7)
