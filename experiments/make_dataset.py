"""Makes an official dataset again by its recipe, where the official file is not at hand.

    python experiments/make_dataset.py --env maze2d-large-v1 --minari jdp/maze2d/large-v1
    python experiments/make_dataset.py --env cube-single-play-v0 --processes 8

D4RL's maze2d takes 10 s on a CPU for each million rows, OGBench's point mazes (extra ogbench) 4 minutes, its
cubes, scene and puzzle 35 minutes; OGBench's are made in blocks, over processes, and a making that was
killed goes on with the same command. The file goes to the folder of D4RL's files ($D4RL_DATASET_DIR or
~/.d4rl/datasets) or of OGBench's ($OGBENCH_DATA_DIR or ~/.ogbench/data), where `--env maze2d-large-v1
--source recipe` of the other scripts finds it; those make it themselves where it is missing, in one process.
`--minari ID` writes a Minari dataset of the same rows too, D4RL's in PointMaze's coordinates.
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
    """maze2d-{umaze,medium,large}-v1, or with -dense before the version; of OGBench
    pointmaze-{medium,large,giant,teleport}-{navigate,stitch}-v0 or
    {cube-single,cube-double,scene,puzzle-3x3}-play-v0; with -val the validation part."""

    seed: int = 0
    """Of everything that is drawn; other scripts ask for seed 0."""

    rows: int | None = None
    """So many rows, of OGBench's in whole episodes (-val is the part to so many rows of training); the
    official number if not given, which other scripts ask for."""

    processes: int = 1
    """That make OGBench's episodes at once; the rows are the same whatever their number."""

    minari: str | None = None
    """Id of a Minari dataset to write too, such as jdp/maze2d/umaze-v1."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    check_seed(config.seed, "--seed")
    if config.minari is not None:
        check_minari(config.minari)
    making = Making(config.seed, config.rows, MakingBar(), config.processes)
    data = jdp.data.load(config.env, source="recipe", making=making)
    print(f"{data.origin.name}: {len(data):,} rows\n{data.origin.path} ({data.origin.size:,} bytes)")
    print(f"SHA-256 {data.origin.sha256}\n{data.origin.licence}\n{data.origin.notice}")
    if config.minari is not None:
        save_minari(
            config.minari,
            jdp.data.transitions(data),
            spec=data.spec,
            score_range=data.spec.score_range,
            algorithm="scripted controller with noise",
            description=f"{data.origin.name}; {data.origin.notice}; {data.origin.licence}",
        )
        print(f"Minari dataset {config.minari} at {minari_path(config.minari)}")


if __name__ == "__main__":
    run_main(main)
