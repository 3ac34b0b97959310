"""Plans in a maze, how they come out of noise, and the closed loop as a film."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from jdp.data import Episodes
from jdp.errors import UserError
from jdp.loops import Played, Recorder
from jdp.tasks import Maze, maze_of
from jdp.types import Spec

WALL, PLAN, PATH, GOAL = "#3d4450", "#4878a8", "#c44e52", "#e0a030"


class Episode(NamedTuple):
    """What one episode in a maze looked like."""

    path: np.ndarray  # [T, 2], where the agent was
    plans: Sequence[np.ndarray]  # each [H, 2], in the order they were made
    goal: np.ndarray  # [2]
    success: bool
    subgoals: Sequence[np.ndarray] = ()  # each [K, 2], of the plans
    made: Sequence[int] = ()  # at which steps the plans were made
    at_goal: int | None = None  # steps there, of an episode that goes on at its goal (maze2d); else None


def episodes(spec: Spec, played: Played, recorder: Recorder) -> list[Episode]:
    """The first episodes in a maze, with their plans, as `jdp.loops.play_in_turn` gives them."""
    xy = list(spec.goal)
    assert played.observation is not None, "play with observations=True"
    return [
        Episode(
            path=played.observation[: played.lengths[i] + 1, i][:, xy],
            plans=[plan[:, xy] for plan in recorder.plans[i]],
            goal=played.goal[i],
            success=bool(played.success[i]),
            subgoals=[s[:, xy] for s in recorder.subgoals[i] if len(s)],
            made=np.flatnonzero(played.decided[:, i]).tolist(),
            at_goal=int(played.returns[i]) if played.success[i] and not played.terminated[i] else None,
        )
        for i in range(recorder.count)
    ]


def draw_maze(axis: Axes, maze: Maze) -> None:
    """The walls of `maze`."""
    walls = maze.cell_to_xy(np.argwhere(~maze.free))
    half = maze.scale / 2
    for x, y in walls:
        axis.fill(
            [x - half, x + half, x + half, x - half], [y - half, y - half, y + half, y + half], color=WALL
        )
    corners = maze.cell_to_xy(np.array([(0, 0), maze.free.shape]) - [[0, 0], [1, 1]])
    axis.set_xlim(corners[:, 0].min() - half, corners[:, 0].max() + half)
    axis.set_ylim(corners[:, 1].min() - half, corners[:, 1].max() + half)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _axes(maze: Maze, columns: int, rows: int = 1, width: float = 2.2) -> tuple[Figure, np.ndarray]:
    height = width * maze.free.shape[0] / maze.free.shape[1]
    size = (width * columns, (height + 0.35) * rows + 0.25)
    figure = Figure(figsize=size, layout="constrained", dpi=180)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        draw_maze(axis, maze)
    return figure, axes


def _goal(axis: Axes, goal: np.ndarray) -> None:
    axis.plot(
        *goal, marker="*", color=GOAL, markersize=9, markeredgecolor="white", markeredgewidth=0.5, zorder=5
    )


def _outcome(episode: Episode) -> str:
    steps = len(episode.path) - 1
    if episode.at_goal is not None:
        return f"{episode.at_goal} of {steps} steps at the goal"
    return f"reached after {steps} steps" if episode.success else "not reached"


def plans(maze: Maze, episodes: Sequence[Episode], *, title: str) -> Figure:
    """One panel an episode: its first plan, the later ones faint, the way it went, subgoals and the goal."""
    columns = min(len(episodes), 4)
    figure, axes = _axes(maze, columns, -(-len(episodes) // columns))
    for axis, episode in zip(axes.flat, episodes, strict=False):
        for i, plan in enumerate(episode.plans):
            strength = {"alpha": 0.9, "linewidth": 1.2} if i == 0 else {"alpha": 0.18, "linewidth": 0.7}
            axis.plot(*plan.T, color=PLAN, **strength)
        if len(episode.subgoals):
            axis.plot(*episode.subgoals[0].T, "o", color=PLAN, markersize=2.5)
        axis.plot(*episode.path.T, color=PATH, linewidth=1.0)
        axis.plot(*episode.path[0], "o", color=PATH, markersize=4)
        _goal(axis, episode.goal)
        axis.set_title(_outcome(episode), fontsize=7)
    for axis in list(axes.flat)[len(episodes) :]:
        axis.set_visible(False)
    figure.suptitle(f"{title}: first plan (blue; later ones faint), path (red), goal", fontsize=8)
    return figure


def denoising(
    maze: Maze | None, chain: np.ndarray, sigmas: Sequence[float], *, title: str, panels: int = 6
) -> Figure:
    """A plan as it comes out of noise: `chain` `[n + 1, T, C]` at the levels `sigmas` `[n + 1]`.

    In a maze the first two channels are drawn as a path; elsewhere all channels (standardised) over time.
    """
    at = np.unique(np.linspace(0, len(chain) - 1, panels).round().astype(int))
    if maze is None:
        figure = Figure(figsize=(1.7 * len(at), 1.7), layout="constrained", dpi=180)
        axes = figure.subplots(1, len(at), squeeze=False)
        limit = max(float(np.abs(chain[-1]).max()), 1.0)
        for axis, i in zip(axes[0], at, strict=True):
            axis.imshow(
                chain[i].T, aspect="auto", vmin=-limit, vmax=limit, cmap="RdBu_r", interpolation="nearest"
            )
            axis.set_yticks([])
            axis.tick_params(labelsize=6)
            axis.set_xlabel("row of the plan", fontsize=6)
        axes[0][0].set_ylabel("channel", fontsize=7)
    else:
        figure, axes = _axes(maze, len(at), width=1.7)
        for axis, i in zip(axes[0], at, strict=True):
            axis.plot(*chain[i, :, :2].T, ".-", color=PLAN, linewidth=0.7, markersize=2)
    for axis, i in zip(axes[0], at, strict=True):
        axis.set_title(f"sigma = {sigmas[i]:.2g}", fontsize=7)
    figure.suptitle(title, fontsize=8)
    return figure


def denoising_of(data: Episodes, chain: np.ndarray, sigmas: ArrayLike, *, title: str) -> Figure:
    """`denoising` of a plan `chain` `[n + 1, T, O]` in the units of the task that `data` are of."""
    spec, levels = data.spec, [float(sigma) for sigma in np.asarray(sigmas)]
    if (maze := maze_of(spec) if spec.goal else None) is not None:
        return denoising(maze, chain[..., list(spec.goal)], levels, title=title)
    scaled = (chain - data.observations.mean(0)) / (data.observations.std(0) + 1e-6)
    return denoising(None, scaled, levels, title=title)


def film(maze: Maze, episode: Episode, *, title: str, frames: int = 60) -> np.ndarray:
    """`[F, H, W, 3]` uint8: the episode step by step, each moment with the plan made last."""
    figure = Figure(
        figsize=(3.0, 3.0 * maze.free.shape[0] / maze.free.shape[1] + 0.3), layout="constrained", dpi=110
    )
    canvas, axis = FigureCanvasAgg(figure), figure.subplots()
    draw_maze(axis, maze)
    _goal(axis, episode.goal)
    axis.set_title(title, fontsize=7)
    (plan,) = axis.plot([], [], color=PLAN, linewidth=1.0)
    (path,) = axis.plot([], [], color=PATH, linewidth=1.2)
    (ball,) = axis.plot([], [], "o", color=PATH, markersize=6)
    pictures = []
    for step in np.unique(np.linspace(0, len(episode.path) - 1, frames).round().astype(int)):
        made = min(int(np.searchsorted(episode.made, step, side="right")), len(episode.plans)) - 1
        if made >= 0:
            plan.set_data(*episode.plans[made].T)
        path.set_data(*episode.path[: step + 1].T)
        ball.set_data(*episode.path[step : step + 1].T)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(pictures)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`[F, H, W1 + W2, 3]`: two films `[F, H, W, 3]` at once; the shorter one stops at its end."""
    count = max(len(left), len(right))
    at = [np.minimum(np.arange(count), len(film) - 1) for film in (left, right)]
    return np.concatenate([left[at[0]], right[at[1]]], axis=2)


def save_film(path: Path, frames: np.ndarray, *, milliseconds: int = 60) -> None:
    """Writes `frames` `[F, H, W, 3]` uint8 as an animated GIF that repeats.

    Raises:
        UserError: if it cannot be written.
    """
    from PIL import Image

    pictures: list[Any] = [Image.fromarray(frame).quantize(64) for frame in frames]
    try:
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    except OSError as error:
        raise UserError(f"could not write {path}: {error}") from error


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, score) those that none is as good as at less cost, by rising cost; at least one."""
    found: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or score > found[-1][1]:
            found.append((cost, score))
    return found


def cost(points: dict[str, tuple[float, float, float, float]], *, score: str, title: str) -> Figure:
    """Score against time per decision: `points[name]` is (seconds, score, low, high).

    The line joins those that no other beats in both: the Pareto front.
    """
    figure = Figure(figsize=(4.6, 3.0), layout="constrained", dpi=180)
    axis, labels = figure.subplots(), []
    front = np.asarray(pareto_front([(found[0], found[1]) for found in points.values()]))
    axis.plot(1e3 * front[:, 0], front[:, 1], color="0.7", linewidth=0.8, drawstyle="steps-post", zorder=0)
    for i, (name, (seconds, mean, low, high)) in enumerate(points.items()):
        bars = None if not np.isfinite([low, high]).all() else [[mean - low], [high - mean]]
        colour, at = f"C{i % 10}", (1e3 * seconds, mean)
        axis.errorbar([at[0]], [mean], yerr=bars, fmt="o", color=colour, markersize=4, linewidth=0.8)
        labels.append(
            axis.annotate(name, at, xytext=(4, 3), textcoords="offset points", fontsize=6, color=colour)
        )
    axis.set_xscale("log")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(which="both", labelsize=7)
    axis.set_xlabel("milliseconds per decision (median, one environment)", fontsize=8)
    axis.set_ylabel(score, fontsize=8)
    axis.set_title(title, fontsize=8)
    set_apart(figure, axis, labels)
    return figure


def set_apart(figure: Figure, axis: Axes, labels: Sequence[Annotation]) -> None:
    """Moves the labels of points to the place beside each that meets the fewest other points and labels."""
    figure.draw_without_rendering()  # from here on places are known, in pixels
    points = [axis.transData.transform(label.xy) for label in labels]
    taken = [Bbox([point - 6, point + 6]) for point in points]
    places = [(side, (x, y)) for y in (3, -9, 11, -17, 19, -25) for side, x in (("left", 4), ("right", -4))]
    for label in labels:
        met = []
        for side, offset in places:
            label.set(horizontalalignment=side, position=offset)
            met.append(label.get_window_extent().count_overlaps(taken))
        side, offset = places[int(np.argmin(met))]
        label.set(horizontalalignment=side, position=offset)
        taken.append(label.get_window_extent())
