"""What the episodes of an OGBench file tell, so that those of a recipe can be held against OGBench's own.

All take the columns of an npz file of OGBench's layout: `observations`, `actions`, `qpos` `[N, ...]`,
`button_states` where there are buttons, and `terminals` `[N]` at the last row of each episode.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jdp.tasks.mazes import maze_of

Columns = Mapping[str, np.ndarray]
KEYS = ("observations", "actions", "qpos", "terminals")
_JUMP = 2.0  # m a step, which only a teleport makes
_GRIPPER = 17  # of the observation
_CUBE = slice(14, 17)  # of qpos


def episodes(columns: Columns) -> list[dict[str, np.ndarray]]:
    """The columns of each episode."""
    ends = np.flatnonzero(columns["terminals"]) + 1
    return [
        {key: values[start:stop] for key, values in columns.items()}
        for start, stop in zip(np.append(0, ends[:-1]), ends, strict=True)
    ]


def statistics(columns: Columns, name: str) -> dict[str, np.ndarray]:
    """By statistic a value for each episode `[E]` of the dataset `name`."""
    of = {"saturated": _saturated, "change": _change} | (_maze(name) if "maze" in name else _arm(name))
    found = episodes(columns)
    return {key: np.array([measure(episode) for episode in found], np.float64) for key, measure in of.items()}


Measure = Callable[[dict[str, np.ndarray]], float]


def _saturated(episode: dict[str, np.ndarray]) -> float:
    """The share of actions' entries at -1 or 1."""
    return float((np.abs(episode["actions"]) >= 1).mean())


def _change(episode: dict[str, np.ndarray]) -> float:
    """The mean change of an action's entry from row to row."""
    return float(np.abs(np.diff(episode["actions"], axis=0)).mean())


def _maze(name: str) -> dict[str, Measure]:
    maze = maze_of(name)
    assert maze is not None

    def cells(episode: dict[str, np.ndarray]) -> float:
        return len(np.unique(maze.xy_to_cell(episode["qpos"]), axis=0))

    def speed(episode: dict[str, np.ndarray]) -> float:
        steps = np.linalg.norm(np.diff(episode["qpos"], axis=0), axis=1)
        return float(steps[steps < _JUMP].mean())

    def off_centre(episode: dict[str, np.ndarray]) -> float:
        centres = maze.cell_to_xy(maze.xy_to_cell(episode["qpos"]))
        return float(np.linalg.norm(episode["qpos"] - centres, axis=1).mean())

    def away(episode: dict[str, np.ndarray]) -> float:
        return float(np.linalg.norm(episode["qpos"][-1] - episode["qpos"][0]))

    def teleports(episode: dict[str, np.ndarray]) -> float:
        return float((np.linalg.norm(np.diff(episode["qpos"], axis=0), axis=1) >= _JUMP).sum())

    always = {"cells": cells, "speed": speed, "off centre": off_centre, "away": away}
    return always | ({"teleports": teleports} if "teleport" in name else {})


def _arm(name: str) -> dict[str, Measure]:
    def travelled(entries: slice, key: str = "qpos") -> Measure:
        return lambda episode: float(
            np.abs(np.diff(episode[key][:, entries].astype(np.float64), axis=0)).sum()
        )

    found: dict[str, Measure] = {
        "arm": travelled(slice(0, 6)),
        "gripper": lambda episode: float(episode["observations"][:, _GRIPPER].mean() / 3),
    }
    if "puzzle" not in name:
        found |= {"cube": travelled(_CUBE), "height": lambda episode: float(episode["qpos"][:, 16].mean())}
    if "double" in name:
        found["stacked"] = lambda episode: float(
            (np.abs(episode["qpos"][:, 16] - episode["qpos"][:, 23]) > 0.035).mean()
        )
    if "cube" not in name:
        found["presses"] = travelled(slice(None), "button_states")
    if "scene" in name:
        found |= {"drawer": travelled(slice(23, 24)), "window": travelled(slice(24, 25))}
    return found
