"""What alignment does to samples in the plane and to plans in a maze, and what it costs."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from jdp.plotting.plans import GOAL, PLAN, draw_maze
from jdp.tasks import Maze

SHOWN = 600  # samples of a panel
MOST = 4  # mazes in a row


def samples(panels: Mapping[str, np.ndarray], *, title: str, columns: int = 6, limit: float = 4.0) -> Figure:
    """Samples `[N, 2]` of each panel, all to one scale."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.65 * rows + 0.3), layout="constrained", dpi=180)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (name, x) in zip(axes.flat, panels.items(), strict=False):
        axis.scatter(*np.asarray(x)[:SHOWN].T, s=1.5, linewidths=0, color=PLAN, alpha=0.6)
        axis.set_xlim(-limit, limit)
        axis.set_ylim(-limit, limit)
        axis.set_title(name, fontsize=7)
        axis.set_aspect("equal")
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=8)
    return figure


def aligned_plans(
    maze: Maze,
    panels: Mapping[str, Iterable[np.ndarray]],
    goals: np.ndarray,
    *,
    title: str,
    disc: tuple[tuple[float, float], float] | None = None,
) -> Figure:
    """Plans or paths `[T, 2]` of each panel in a maze, to goals `[N, 2]`; `disc` is `(centre, radius)`."""
    width, columns = 2.6, len(panels) if len(panels) <= MOST else -(-len(panels) // 2)
    rows = -(-len(panels) // columns)
    height = rows * width * maze.free.shape[0] / maze.free.shape[1]
    figure = Figure(figsize=(width * columns, height + 0.6), layout="constrained", dpi=180)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    for axis, (name, plans) in zip(axes.flat, panels.items(), strict=False):
        draw_maze(axis, maze)
        for plan in plans:
            axis.plot(*plan.T, color=PLAN, linewidth=0.7, alpha=0.6)
        axis.plot(*goals.T, "*", color=GOAL, markersize=4, markeredgewidth=0)
        if disc is not None:
            axis.add_patch(Circle(*disc, color="#c44e52", alpha=0.35, linewidth=0))
        axis.set_title(name, fontsize=7)
    figure.suptitle(title, fontsize=8)
    return figure


def efficiency(
    curves: Mapping[str, tuple[Sequence[float], np.ndarray]], *, optimum: float, score: str, title: str
) -> Figure:
    """A score against network calls: `curves[name]` are (calls `[n]`, scores `[n, S]`); lines are means."""
    figure = Figure(figsize=(5.4, 3.2), layout="constrained", dpi=180)
    axis = figure.subplots()
    styles = ("-", "--", ":")
    for i, (name, (calls, found)) in enumerate(curves.items()):
        found = np.asarray(found, np.float64)
        colour, style = f"C{i % 10}", styles[i // 10 % len(styles)]
        axis.plot(calls, found.mean(axis=1), linewidth=1.3, label=name, color=colour, linestyle=style)
        if found.shape[1] > 1:
            axis.fill_between(
                calls, found.min(axis=1), found.max(axis=1), alpha=0.12, linewidth=0, color=colour
            )
    axis.axhline(optimum, color="#404040", linewidth=0.8, linestyle=(0, (1, 2)))
    axis.set_xscale("log")
    axis.set_xlabel("network calls", fontsize=8)
    axis.set_ylabel(score, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)
    axis.legend(frameon=False, fontsize=6, ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title, fontsize=8)
    return figure
