"""The curves of one metric of a run, small and to be read on white and on black."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:  # runs that draw their pictures need no tables
    import pandas as pd

COLOURS = ("#4c8fdd", "#d9605f", "#3fa76a", "#d08c2a", "#9673d3", "#2ca0a8", "#c8609f", "#8a94a0")
GREY = "#7f8894"


def metric(
    curves: "pd.DataFrame", *, behaviour: float | None = None, span: tuple[float, float] | None = None
) -> Figure:
    """A line a phase, with its band, from rows of `jdp.runs.curves.summarise` for one metric.

    Args:
        behaviour: of scores, that of the dataset's own episodes.
        span: scores that the axis shows; without it the axis is logarithmic where the means span much.
    """
    figure = Figure(figsize=(4.2, 2.3))
    axis = figure.add_axes((0.14, 0.17, 0.83, 0.78))
    for i, (phase, line) in enumerate(curves.groupby("phase", sort=False)):
        colour, marker = COLOURS[i % len(COLOURS)], "o" if len(line) == 1 else None
        axis.fill_between(line.step, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(line.step, line["mean"], color=colour, linewidth=1.6, marker=marker, label=phase)
    mean = curves["mean"].dropna()
    if span is not None:
        pad = 0.1 * (span[1] - span[0]) or 1.0
        low, high = span if behaviour is None else (min(span[0], behaviour), max(span[1], behaviour))
        axis.set_ylim(low - pad, high + pad)
    elif len(mean) and mean.min() > 0 and mean.max() > 50 * mean.min():
        axis.set_yscale("log")
    if behaviour is not None:
        axis.axhline(behaviour, color=GREY, linewidth=0.9, linestyle="--", label="behaviour policy")
    if curves.phase.nunique() > 1 or behaviour is not None:
        axis.legend(frameon=False, fontsize=7, labelcolor=GREY)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(GREY)
    axis.tick_params(which="both", labelsize=7.5, colors=GREY)
    axis.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
    return figure
