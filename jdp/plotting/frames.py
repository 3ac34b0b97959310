"""Frames of a trajectory, if this machine can render."""

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jdp.data import Experience
from jdp.types import Spec


def render(env_id: str | Spec | None, observations: np.ndarray) -> np.ndarray | None:
    """`[n, H, W, 3]` frames of MuJoCo states given as observations `[n, O]`; None without a renderer.

    The hidden coordinates (the position along the track) are 0, so the body stays in the middle.
    """
    from jdp.evaluation.simulator import Simulator

    before = os.environ.get("MUJOCO_GL")
    if before is None and not os.environ.get("DISPLAY"):
        os.environ["MUJOCO_GL"] = "egl"  # without a screen
    try:
        simulator = Simulator(env_id, render_mode="rgb_array")
        frames = np.stack([simulator.frame(observation) for observation in observations])
        simulator.close()
        return frames
    except Exception:  # drivers fail in many ways, and a picture is not worth a run
        return None
    finally:
        if before is None:
            os.environ.pop("MUJOCO_GL", None)


def strip(frames: dict[str, np.ndarray], times: list[int], *, title: str) -> Figure:
    """Rows of frames: `frames[name]` `[n, H, W, 3]` at `times` `[n]`."""
    rows, columns = len(frames), len(times)
    figure = Figure(figsize=(1.05 * columns, 1.15 * rows + 0.3), layout="constrained", dpi=200)
    axes = figure.subplots(rows, columns, squeeze=False)
    for r, (name, row) in enumerate(frames.items()):
        for axis, time, frame in zip(axes[r], times, row, strict=True):
            axis.imshow(frame)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if r == 0:
                axis.set_title(f"t = {time}", fontsize=7)
        axes[r][0].set_ylabel(name, fontsize=8)
    figure.suptitle(title, fontsize=8)
    return figure


def trajectories(spec: Spec, sets: Mapping[str, Experience], *, count: int = 8, title: str) -> Figure | None:
    """`count` frames of the first trajectory of each set `[N, T, ...]` that does not end early.

    None without a renderer, or where no set has such a trajectory.
    """
    frames, times = {}, [0]
    for kind, made in sets.items():
        times = [int(t) for t in np.linspace(0, made.terminal.shape[1] - 1, count)]
        whole = np.flatnonzero(made.terminal.sum(axis=1) == 0)
        shown = render(spec, made.observation[whole[0]][times]) if len(whole) else None
        if shown is not None:
            frames[kind] = shown
    return strip(frames, times, title=title) if frames else None
