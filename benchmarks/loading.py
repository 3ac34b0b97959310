"""Seconds to load and to window a D4RL-layout file of 1,000,000 transitions; prints JSON.

python benchmarks/loading.py
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

import jdp.data
from jdp.data.export import save_d4rl
from jdp.types import Transition


def hopper_like(n: int) -> tuple[Transition, np.ndarray]:
    """Random rows of Hopper's shape; an episode ends every 500 steps, half of them in a terminal."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(n + 1, 11)).astype(np.float32)
    ends = np.arange(1, n + 1) % 500 == 0
    terminals = ends & (np.arange(n) % 1000 < 500)
    transitions = Transition(
        states[:-1],  # type: ignore[arg-type]
        rng.uniform(-1, 1, size=(n, 3)).astype(np.float32),  # type: ignore[arg-type]
        rng.normal(size=n).astype(np.float32),  # type: ignore[arg-type]
        states[1:],  # type: ignore[arg-type]
        terminals.astype(np.float32),  # type: ignore[arg-type]
    )
    return transitions, ends & ~terminals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--horizon", type=int, default=32)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hopper-like.hdf5"
        save_d4rl(path, *hopper_like(args.n), env_id="Hopper-v5")
        start = time.perf_counter()
        data = jdp.data.load(str(path))
        loaded = time.perf_counter()
        windows = jdp.data.windows(data, args.horizon)
        windowed = time.perf_counter()
        packed, _ = jdp.data.training_rows(data, jdp.data.fit_normaliser(data))
        normalised = time.perf_counter()
    seconds = {
        "load_s": loaded - start,
        "windows_s": windowed - loaded,
        "normalise_s": normalised - windowed,
    }
    counts = {"n": args.n, "windows": len(windows.starts), "packed_mb": packed.nbytes / 1e6}
    print(json.dumps({k: round(v, 4) for k, v in seconds.items()} | counts))


if __name__ == "__main__":
    main()
