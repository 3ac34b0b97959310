"""Learning curves, scores, dynamics error by position, generated marginals beside the data's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = {
    "data": "#404040",
    "dataset": "#404040",
    "unguided": "#4878a8",
    "guided": "#c44e52",
    "world_model": "#dd9a3c",
    "ensemble": "#dd9a3c",
    "ensemble without noise": "#a97e4a",
    "diffusion step": "#6aa56e",
}


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", dpi=200)


def _tidy(axis: Axes, x: str, y: str) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(which="both", labelsize=7)
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)


def curves(
    loss: tuple[Sequence[float], Sequence[float]] | None,
    scores: Mapping[str, tuple[Sequence[float], np.ndarray]],
    *,
    behaviour: float | None,
    title: str,
    score: str = "normalised score",
) -> Figure:
    """The score of every arm against updates, beside the diffuser's loss against steps where there is one.

    `scores[arm]` is (updates `[n]`, scores `[n, S]`); thin lines are seeds, the thick one their mean.
    `behaviour` is the mean score of the dataset's own episodes.
    """
    panels = 1 if loss is None else 2
    figure = _figure(3.4 * panels, 2.4)
    axes = np.atleast_1d(figure.subplots(1, panels))
    if loss is not None:
        axes[0].plot(*loss, color=COLOURS["data"], linewidth=1)
        axes[0].set_yscale("log")
        _tidy(axes[0], "diffuser steps", "denoising loss")
    for arm, (updates, values) in scores.items():
        colour = COLOURS.get(arm, COLOURS["unguided"])
        axes[-1].plot(updates, values, color=colour, linewidth=0.5, alpha=0.5)
        axes[-1].plot(updates, np.mean(values, axis=1), color=colour, linewidth=1.6, label=arm)
    if behaviour is not None:
        axes[-1].axhline(behaviour, color="#909090", linewidth=0.8, linestyle="--", label="behaviour policy")
    _tidy(axes[-1], "agent updates", score)
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(4))
    axes[-1].legend(frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=8)
    return figure


def claim(
    curves: Mapping[str, np.ndarray],
    points: Mapping[str, Sequence[tuple[str, Sequence[float], Sequence[float]]]],
    *,
    window: int,
    steps: str,
    title: str,
) -> Figure:
    """Dynamics error of experience from world models and trajectory diffusion.

    Left: `curves[name]` `[S, T]`, the error at every position of a rollout, one row a seed (thin lines), and
    their geometric mean; diffused windows are chained at multiples of `window`. Right: the error of `steps`
    against the likelihood under the target policy; `points[name]` are (label, likelihoods `[S]`, errors
    `[S]`), a dot a seed, joined at their means.
    """
    figure = _figure(6.6, 3.0)
    left, right = figure.subplots(1, 2, sharey=True)
    for name, values in curves.items():
        colour, position = COLOURS.get(name), np.arange(1, values.shape[1] + 1)
        left.plot(position, values.T, color=colour, linewidth=0.4, alpha=0.5)
        left.plot(
            position, np.exp(np.nanmean(np.log(values), axis=0)), color=colour, linewidth=1.6, label=name
        )
    for joint in range(window, next(iter(curves.values())).shape[1], window):
        left.axvline(joint, color="#b0b0b0", linewidth=0.6, linestyle=":")
    left.set_yscale("log")
    _tidy(left, "position in the rollout", "squared error of the next state")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(curves), frameon=False, fontsize=7)
    for name, found in points.items():
        colour = COLOURS.get(name)
        middles = [(np.mean(x), np.exp(np.mean(np.log(y)))) for _, x, y in found]
        right.plot(*zip(*middles, strict=True), color=colour, linewidth=0.8, marker="s", markersize=3.5)
        for (text, x, y), middle in zip(found, middles, strict=True):
            right.plot(x, y, "o", color=colour, markersize=2.5, alpha=0.6)
            right.annotate(text, middle, xytext=(3, 3), textcoords="offset points", fontsize=6, color=colour)
    _tidy(right, "log-likelihood under the target policy", f"squared error, steps {steps}")
    figure.suptitle(title, fontsize=8)
    return figure


def bars(scores: Mapping[str, Any], *, behaviour: float | None, title: str) -> Figure:
    """The score of every arm: a dot a seed, the mean and its interval.

    `scores[arm]` is `{"seeds": [S], "interval": (mean, low, high)}`.
    """
    figure = _figure(3.0, 2.6)
    axis = figure.subplots()
    for i, (arm, score) in enumerate(scores.items()):
        seeds, (mean, low, high) = score["seeds"], score["interval"]
        colour = COLOURS.get(arm)
        axis.plot([i - 0.12] * len(seeds), seeds, "o", color=colour, markersize=3, alpha=0.6)
        if np.isfinite([low, high]).all():
            axis.plot([i + 0.12] * 2, [low, high], color=colour, linewidth=1.2)
        axis.plot([i + 0.12], [mean], "s", color=colour, markersize=5)
    if behaviour is not None:
        axis.axhline(behaviour, color="#909090", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(scores)), list(scores))
    _tidy(axis, "", "normalised score, last checkpoint")
    axis.set_title(title, fontsize=8)
    return figure
