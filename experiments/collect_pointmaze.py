"""Collects a D4RL-style PointMaze set: a noisy waypoint controller going from random goal to random goal.

    python experiments/collect_pointmaze.py --maze large --steps 100000 --seed 0 --out pointmaze-large.hdf5

Takes about 5 s on a CPU for 100,000 steps. The file has the D4RL layout, for `--env FILE` of the other
scripts; `--minari ID` writes a Minari dataset too. Same settings, same bytes. The bundled sets are

    --maze umaze --steps 50000 --compact    and    --maze large --steps 100000 --compact
"""

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from command_line import parse, run_main
from progress import Bar

import jdp.data
from jdp.data.export import save_d4rl, save_minari
from jdp.data.minari import minari_path
from jdp.errors import UserError
from jdp.tasks.collect import D_GAIN, P_GAIN, Collection, check, collect_point_maze
from jdp.tasks.mazes import POINT_ENV_IDS


@dataclass(frozen=True)
class Config:
    """Collect and write one set."""

    collection: Annotated[Collection, tyro.conf.arg(name="")] = Collection()  # noqa: RUF009 (frozen)
    out: Path | None = None
    """HDF5 file to write; pointmaze-MAZE.hdf5 if not given."""

    compact: bool = False
    """Leave the next observations out of the file: the reader takes them from the next row."""

    minari: str | None = None
    """Id of a Minari dataset to write too, such as jdp/pointmaze/large-v0."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    settings = config.collection
    check(settings)
    out = config.out or Path(f"pointmaze-{settings.maze}.hdf5")
    check_free(out, config.minari)
    env_id = POINT_ENV_IDS[settings.maze]
    with Bar(f"collecting {settings.maze}", settings.steps, "step") as bar:
        transitions, timeouts = collect_point_maze(settings, progress=bar.at)
    facts = asdict(settings) | {"controller": "waypoints", "p_gain": P_GAIN, "d_gain": D_GAIN}
    save_d4rl(out, transitions, timeouts, env_id=env_id, metadata=facts, compact=config.compact)
    if config.minari is not None:
        about = f"D4RL-style rollouts of a waypoint controller: {facts}"
        save_minari(config.minari, transitions, timeouts, env_id=env_id, description=about)

    data = jdp.data.load(str(out))
    rewarded = float(data.rewards.mean())
    print(f"wrote {out}: {len(data):,} steps, {len(data.lengths)} episodes, {out.stat().st_size:,} bytes")
    print(f"{env_id}, at the goal pursued in {rewarded:.1%} of the steps")
    if config.minari is not None:
        print(f"Minari dataset {config.minari} at {minari_path(config.minari)}")


def check_free(out: Path, dataset_id: str | None) -> None:
    """Raises `UserError` where the results could not be written, before they are collected."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file in it")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--out {out}: {folder} is no folder that can be written to; choose another path")
    if dataset_id is not None:
        check_minari(dataset_id)


def check_minari(dataset_id: str) -> None:
    """Raises `UserError` for an id that cannot be written."""
    if not re.search(r"-v\d+$", dataset_id):
        raise UserError(f"--minari {dataset_id}: an id needs a version, such as {dataset_id}-v0")
    if minari_path(dataset_id).exists():
        raise UserError(f"--minari {dataset_id}: it exists already; choose another version")


if __name__ == "__main__":
    run_main(main)
