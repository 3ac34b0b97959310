"""One sample among the chains of a recipe: its statistics, and its distributions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jdp.evaluation.agreement import COVERED, Spread
from jdp.plotting.figures import COLOURS, _figure, _tidy

FARTHEST = 8.0  # standard deviations that are shown; what is further off stands at the edge
_MARKS = (("x", "#dd9a3c"), ("+", "#c44e52"), ("1", "#6aa56e"))


def agreement(
    real: Mapping[str, Mapping[str, float]],
    recipe: Mapping[str, Mapping[str, Spread]],
    controls: Mapping[str, Mapping[str, Mapping[str, Spread]]],
    *,
    title: str,
) -> Figure:
    """Statistics as standard deviations from the mean of the recipe's chains, one panel a task.

    Bars span the recipe's chains; `real[task]` are dots, the means of `controls[name][task]` crosses.
    """
    figure = _figure(2.3 * len(real) + 0.9, 2.6)
    axes = np.atleast_1d(figure.subplots(1, len(real), sharey=True))
    for axis, (task, values) in zip(axes, real.items(), strict=True):
        spread, names = recipe[task], list(values)
        rows = np.arange(len(names))[::-1]

        def away(found: Mapping[str, float], spread=spread) -> np.ndarray:
            units = [(v - spread[n].mean) / max(spread[n].std, 1e-12) for n, v in found.items()]
            return np.clip(units, -FARTHEST, FARTHEST)

        low, high = away({n: spread[n].low for n in names}), away({n: spread[n].high for n in names})
        axis.barh(rows, high - low, left=low, height=0.6, color="#c9d6e6", label="95 % of the chains")
        for (control, found), (mark, colour) in zip(controls.items(), _MARKS, strict=False):
            means = away({n: found[task][n].mean for n in names})
            axis.plot(means, rows, mark, color=colour, markersize=5, label=control)
        axis.plot(away(values), rows, "o", color=COLOURS["data"], markersize=3.5, label="D4RL's rows")
        axis.set_yticks(rows, names)
        axis.set_xlim(-FARTHEST - 0.5, FARTHEST + 0.5)
        axis.set_title(task, fontsize=8)
        _tidy(axis, "standard deviations", "")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False,
                  fontsize=7)  # fmt: skip
    figure.suptitle(title, fontsize=8)
    return figure


def distributions(
    real: Mapping[str, Mapping[str, np.ndarray]],
    chains: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    *,
    title: str,
) -> Figure:
    """Histograms of `real[task][quantity]` (line) over the range of those of `chains[task]` (band)."""
    quantities = list(next(iter(real.values())))
    figure = _figure(1.9 * len(quantities), 1.5 * len(real) + 0.3)
    axes = figure.subplots(len(real), len(quantities), squeeze=False)
    for row, (task, found) in enumerate(real.items()):
        for column, name in enumerate(quantities):
            axis = axes[row, column]
            everything = np.concatenate([found[name], *(chain[name] for chain in chains[task])])
            edges = np.linspace(everything.min(), everything.max(), 31)
            shares = [_shares(chain[name], edges) for chain in chains[task]]
            low, high = np.quantile(shares, COVERED, axis=0)
            axis.stairs(high, edges, baseline=low, fill=True, color="#9db8d6")
            axis.stairs(_shares(found[name], edges), edges, color=COLOURS["data"], linewidth=0.8)
            axis.set_yticks([])
            _tidy(axis, name if row == len(real) - 1 else "", "" if column else task)
    figure.suptitle(title, fontsize=8)
    return figure


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges)[0] / len(values)
