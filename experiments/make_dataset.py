"""Makes an official dataset again by its recipe, where D4RL's file is not at hand.

    python experiments/make_dataset.py --env maze2d-large-v1 --minari jdp/maze2d/large-v1

Takes 10 s on a CPU for each million rows. The HDF5 file goes to the folder of D4RL's files
($D4RL_DATASET_DIR or ~/.d4rl/datasets), where `--env maze2d-large-v1 --source recipe` of the other scripts
finds it; those make it themselves where it is missing. `--minari ID` writes a Minari dataset of the same
rows, in PointMaze's coordinates, too.
"""

from dataclasses import dataclass

from collect_pointmaze import check_minari
from command_line import parse, run_main
from progress import MakingBar

import jdp.data
from jdp.data.export import save_minari
from jdp.data.minari import minari_path
from jdp.data.recipes import Making
from jdp.errors import check_seed


@dataclass(frozen=True)
class Config:
    """Make one dataset."""

    env: str = "maze2d-umaze-v1"
    """maze2d-umaze-v1, maze2d-medium-v1, maze2d-large-v1, or with -dense before the version."""

    seed: int = 0
    """Of everything that is drawn; other scripts ask for seed 0."""

    rows: int | None = None
    """So many rows; the official number if not given, which other scripts ask for."""

    minari: str | None = None
    """Id of a Minari dataset to write too, such as jdp/maze2d/umaze-v1."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    check_seed(config.seed, "--seed")
    if config.minari is not None:
        check_minari(config.minari)
    making = Making(config.seed, config.rows, MakingBar())
    data = jdp.data.load(config.env, source="recipe", making=making)
    print(f"{data.origin.name}: {len(data):,} rows\n{data.origin.path} ({data.origin.size:,} bytes)")
    print(f"SHA-256 {data.origin.sha256}\n{data.origin.licence}\n{data.origin.notice}")
    if config.minari is not None:
        save_minari(
            config.minari,
            jdp.data.transitions(data),
            spec=data.spec,
            score_range=data.spec.score_range,
            algorithm="waypoint controller with noise",
            description=f"{data.origin.name}; {data.origin.notice}; {data.origin.licence}",
        )
        print(f"Minari dataset {config.minari} at {minari_path(config.minari)}")


if __name__ == "__main__":
    run_main(main)
