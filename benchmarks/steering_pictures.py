"""Draws what `steering.py --shown FILE` keeps: plans of all ways from one start, and a film of a swap.

python benchmarks/steering_pictures.py FILE docs/images
"""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from steering_worlds import OUT, RADIUS, TWO

from jdp.plotting.plans import GOAL, PATH, PLAN, draw_maze, save_film
from jdp.tasks.mazes import point_maze

FRAMES, HELD = 48, 8
Ways = Mapping[str, tuple[np.ndarray, np.ndarray]]  # paths [T + 1, O] and plans [H, O]


def ways_of(shown: Mapping, wish: str, episode: int) -> Ways:
    """One episode by every way that can say the wish."""
    return {
        way: (seen[episode], plan[episode]) for (asked, way), (seen, plan) in shown.items() if asked == wish
    }


def plans(ways: Ways) -> Figure:
    """A panel a way: the plan, the path, and the disc that is to be kept out of."""
    figure = Figure(figsize=(1.45 * len(ways), 1.75), layout="constrained", dpi=180)
    for axis, (way, (path, plan)) in zip(figure.subplots(1, len(ways)), ways.items(), strict=True):
        draw_maze(axis, point_maze("umaze"))
        axis.add_patch(_disc(OUT, RADIUS, PATH, 0.35))
        axis.plot(*plan[:, :2].T, ".-", color=PLAN, linewidth=0.9, markersize=2)
        axis.plot(*path[:, :2].T, color=PATH, linewidth=1.0)
        axis.plot(*path[0, :2], "o", color=PATH, markersize=3)
        axis.plot(*plan[-1, :2], "*", color=GOAL, markersize=7)
        axis.set_title(
            f"{way}: {np.linalg.norm(path[:, :2] - OUT, axis=1).min() - RADIUS:+.2f} m", fontsize=7
        )
    figure.suptitle("Keep out of the disc: plan (blue), path (red), and by how much it was kept", fontsize=8)
    return figure


def _disc(at: np.ndarray | tuple[float, float], radius: float, colour: str, alpha: float):
    return Circle((float(at[0]), float(at[1])), radius, color=colour, alpha=alpha, linewidth=0)


def _agents(axis: Axes, way: str, path: np.ndarray, plan: np.ndarray, step: int) -> None:
    axis.clear()
    near = np.linalg.norm(path[: step + 1, :2] - path[: step + 1, 2:4], axis=1).min()
    for entries, colour in (((0, 1), PLAN), ((2, 3), GOAL)):
        axis.plot(*plan[:, list(entries)].T, ":", color=colour, linewidth=0.8)
        axis.plot(*path[: step + 1, list(entries)].T, color=colour, linewidth=1.0)
        axis.add_patch(_disc(path[step, list(entries)], TWO.radius, colour, 0.9))
    hit = near < 2 * TWO.radius
    axis.set_title(f"{way}: {'hit' if hit else f'{near:.2f} m'}", fontsize=6, color=PATH if hit else "black")
    axis.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[], yticks=[])


def film(ways: Ways) -> np.ndarray:
    """`[F, H, W, 3]` uint8, all ways at once."""
    figure = Figure(figsize=(1.3 * len(ways), 1.5), layout="constrained", dpi=90)
    canvas, axes = FigureCanvasAgg(figure), figure.subplots(1, len(ways))
    last = max(_arrival(path) for path, _ in ways.values())
    frames = []
    for step in [*np.linspace(0, last, FRAMES).round().astype(int), *[last] * HELD]:
        for axis, (way, (path, plan)) in zip(axes, ways.items(), strict=True):
            _agents(axis, way, path, plan, min(step, len(path) - 1))
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)


def _arrival(path: np.ndarray) -> int:
    """The last step at which anything moved by 2 mm or more."""
    moved = np.abs(np.diff(path[:, :4], axis=0)).max(1) > 2e-3
    return int(np.flatnonzero(moved).max(initial=0)) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    shown = pickle.loads(args.file.read_bytes())
    alone = shown["maze"]["keep out", "nothing"][0]
    least = np.linalg.norm(alone[..., :2] - np.array(OUT), axis=-1).min(1) - RADIUS
    first = int(np.argmax(least < -0.1))  # the first start at which it goes well into the disc
    plans(ways_of(shown["maze"], "keep out", first)).savefig(args.out / "steering_plans.png")
    alone = shown["swap"]["keep apart", "nothing"][0]
    least = np.linalg.norm(alone[..., :2] - alone[..., 2:4], axis=-1).min(1)
    first = int(np.argmax(least < 2 * TWO.radius))
    save_film(args.out / "steering_swap.gif", film(ways_of(shown["swap"], "keep apart", first)))


if __name__ == "__main__":
    main()
