"""Hand-made datasets for the tests of jdp.data."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jdp.data.episodes import Episodes, Origin, make_episodes
from jdp.types import Spec

ORIGIN = Origin("made by hand", "file", "", "", 0, "MIT")


def columns(n: int, *, terminal_rows=(), timeout_rows=(), seed: int = 0) -> dict[str, Any]:
    """`n` rows of distinct values; an episode ends at each row named."""
    rng = np.random.default_rng(seed)
    terminals, timeouts = np.zeros(n, bool), np.zeros(n, bool)
    terminals[list(terminal_rows)] = True
    timeouts[list(timeout_rows)] = True
    observations = rng.normal(size=(n, 3)).astype(np.float32)
    next_observations = np.concatenate([observations[1:], rng.normal(size=(1, 3))]).astype(np.float32)
    ends = np.flatnonzero(terminals | timeouts)
    next_observations[ends] = 100 + ends[:, None]  # what came next is not the next row
    return {
        "observations": observations,
        "actions": rng.uniform(-1, 1, size=(n, 2)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "next_observations": next_observations,
        "terminals": terminals,
        "timeouts": timeouts,
    }


def write(path: Path, values: dict[str, Any]) -> str:
    with h5py.File(path, "w") as file:
        for key, value in values.items():
            file.create_dataset(key, data=value)
    return str(path)


def random_episodes(seed: int, episodes: int = 12, longest: int = 20) -> Episodes:
    """Episodes of random lengths, about half of them terminal; `observations[:, 0]` is the row."""
    rng = np.random.default_rng(seed)
    stops = np.cumsum(rng.integers(1, longest + 1, episodes))
    terminal = rng.random(episodes) < 0.5
    values = columns(
        int(stops[-1]), terminal_rows=stops[terminal] - 1, timeout_rows=stops[~terminal] - 1, seed=seed
    )
    values["observations"][:, 0] = np.arange(stops[-1])
    inside = np.setdiff1d(np.arange(stops[-1]), stops - 1)
    values["next_observations"][inside] = values["observations"][inside + 1]
    return make_episodes(**values, spec=Spec(3, 2), origin=ORIGIN)
