"""A dataset in pictures: histograms of its returns, lengths and actions."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jdp.data import Episodes
from jdp.data.card import DatasetCard
from jdp.plotting.figures import _figure, _tidy


def card(data: Episodes, found: DatasetCard) -> Figure:
    """Histograms of the returns, the lengths and every action channel of `data`; `found` is its card."""
    channels = data.spec.action_dim
    columns = min(2 + channels, 5)
    rows = math.ceil((2 + channels) / columns)
    figure = _figure(2.0 * columns, 1.6 * rows + 0.4)
    returns, lengths, *actions = figure.subplots(rows, columns, squeeze=False).flat
    for axis, values, mean, name in (
        (returns, data.returns, found.returns.mean, "return"),
        (lengths, data.lengths, found.lengths.mean, "length (steps)"),
    ):
        _histogram(axis, values, edges(values), name, "episodes" if axis is returns else "")
        axis.axvline(mean, color="#c44e52", linewidth=1)
        axis.set_title(f"mean {mean:,.0f}", color="#c44e52", fontsize=8)
    for i, axis in enumerate(actions[:channels]):
        label = "" if i else "share of steps"
        _histogram(axis, data.actions[:, i], np.linspace(-1, 1, 41), f"action {i}", label, 1 / len(data))
    for axis in actions[channels:]:
        axis.set_visible(False)
    quality = "" if found.tq is None else f", TQ {found.tq:.2f}"
    counts = f"{found.episodes:,} episodes, {found.transitions:,} transitions"
    figure.suptitle(f"{found.origin.name}: {counts}{quality}", fontsize=9)
    return figure


def edges(values: np.ndarray, bins: int = 30) -> np.ndarray:
    """`[bins + 1]`, those of a histogram, also of values that are equal but for rounding."""
    low, high = float(values.min()), float(values.max())
    least = 1e-6 * max(abs(low), abs(high), 1e-6)
    room = max(0.0, (least - (high - low)) / 2)
    return np.linspace(low - room, high + room, bins + 1)


def _histogram(axis: Axes, values: np.ndarray, bins: np.ndarray, x: str, y: str, weight: float = 1) -> None:
    weights = np.full(len(values), weight)
    axis.hist(values, bins=bins.tolist(), weights=weights, color="#4878a8", linewidth=0)
    _tidy(axis, x, y)
