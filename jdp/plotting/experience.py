"""Sets of generated experience beside the data: dynamics error by position, marginals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jdp.data import Experience
from jdp.plotting.figures import COLOURS, _figure, _tidy


def dynamics_by_position(errors: Mapping[str, np.ndarray], *, title: str) -> Figure:
    """Median squared one-step error (standardised) against the position in the window.

    `errors[name]` is `[N, T - 1]` with NaN where a step does not count; the band is from the 25 % to the
    75 % quantile.
    """
    figure = _figure(4.2, 2.6)
    axis = figure.subplots()
    for name, values in errors.items():
        low, middle, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=0)
        steps = np.arange(len(middle))
        axis.plot(steps, middle, color=COLOURS.get(name), linewidth=1.4, label=name)
        axis.fill_between(steps, low, high, color=COLOURS.get(name), alpha=0.15, linewidth=0)
    axis.set_yscale("log")
    _tidy(axis, "position in the window", "squared error of the next state")
    axis.legend(frameon=False, fontsize=7)
    axis.set_title(title, fontsize=8)
    return figure


def marginals(sets: Mapping[str, np.ndarray], names: Sequence[str], *, title: str) -> Figure:
    """Histograms of every column of `sets[name]` `[N, C]`, on common bins."""
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    figure = _figure(1.6 * columns, 1.25 * rows + 0.5)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for i, (axis, label) in enumerate(zip(axes, names, strict=False)):
        everything = np.concatenate([values[:, i] for values in sets.values()])
        low, high = np.quantile(everything, (0.002, 0.998))
        bins = np.linspace(low, high, 41).tolist()
        if bins[0] == bins[-1]:
            bins = [bins[0] - 0.5, bins[0] + 0.5]
        for name, values in sets.items():
            axis.hist(
                values[:, i],
                bins=bins,
                density=True,
                histtype="step",
                color=COLOURS.get(name),
                label=name,
            )
        _tidy(axis, label, "")
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=len(sets), frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=8, x=0.01, ha="left")
    return figure


def experience_marginals(sets: Mapping[str, Experience], *, title: str) -> Figure:
    """`marginals` of what valid steps hold: the first 11 observations and 8 actions, and the reward."""
    first = next(iter(sets.values()))
    states, actions = min(first.observation.shape[-1], 11), min(first.action.shape[-1], 8)
    names = [*(f"state {i}" for i in range(states)), *(f"action {i}" for i in range(actions)), "reward"]
    columns = {}
    for kind, made in sets.items():
        parts = [made.observation[..., :states], made.action[..., :actions], made.reward[..., None]]
        columns[kind] = np.concatenate(parts, axis=-1)[made.valid]
    return marginals(columns, names, title=title)
