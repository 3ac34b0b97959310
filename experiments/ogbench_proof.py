"""Holds OGBench's own episodes against those that the recipe makes: some means a dataset, by Welch's test.

    python experiments/ogbench_proof.py --real FOLDER

FOLDER has files of OGBench's layout under its names (pointmaze-large-navigate-v0.npz, ...), official ones or
what OGBench's generation scripts wrote; their first episodes are used. Takes 15 minutes on a CPU core for all
twelve. Writes `ogbench_table.md` to `results/recipes/`, which docs/data/ogbench.md shows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from command_line import parse, run_main
from options import check_positive
from progress import MakingBar

from jdp.data import ogbench, recipes
from jdp.data.recipes import Making
from jdp.data.recipes.ogbench_facts import KEYS, statistics
from jdp.errors import UserError
from jdp.evaluation.statistics import welch


@dataclass(frozen=True)
class Config:
    """Which episodes are held against which."""

    real: Path
    """Folder of OGBench's files."""

    rows: int = 20_020
    """Rows of each file, and of the recipe, in whole episodes."""

    seed: int = 1000
    """Of the recipe: none that a dataset has."""

    processes: int = 1
    """That make episodes at once."""

    out: Path = Path("results/recipes")
    """Folder of the table."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    check_positive({"--rows": config.rows, "--processes": config.processes})
    lines = ["| dataset | statistic | OGBench's | the recipe's | p |", "|---|---|---|---|---|"]
    levels: list[float] = []
    for name in recipes.ogbench.NAMES:
        path = config.real / f"{name}.npz"
        if path.is_file():
            rows, found = compared(name, path, config)
            lines, levels = lines + rows, levels + found
    if not levels:
        raise UserError(
            f"--real {config.real}: no file of it is called {recipes.ogbench.NAMES[0]}.npz or the like"
        )
    low = sum(level < 0.05 for level in levels)
    text = "\n".join([*lines, "", f"{low} of {len(levels)} p-values are below .05, where chance gives "
                      f"{0.05 * len(levels):.1f}; the smallest is {min(levels):.4f}."])  # fmt: skip
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "ogbench_table.md").write_text(text + "\n")
    except OSError as error:
        raise UserError(f"could not write to {config.out}: {error}") from error
    print(f"{text}\n\nwrote {config.out}/ogbench_table.md")


def compared(name: str, path: Path, config: Config) -> tuple[list[str], list[float]]:
    """A line of the table for each statistic of a dataset, and the p-values."""
    recipe = recipes.find(name)
    assert recipe is not None
    making = Making(config.seed, config.rows, MakingBar(), config.processes)
    made = first_rows(recipes.made(recipe, making), recipe.training_rows(config.rows))
    real = first_rows(path, recipe.training_rows(config.rows))
    lines, levels = [], []
    theirs, ours = statistics(real, name), statistics(made, name)
    for key in theirs:
        a, b = theirs[key], ours[key]
        level = 1.0 if np.ptp(a) == np.ptp(b) == a[0] - b[0] == 0 else welch(a, b)
        shown = [f"{x.mean():.4g} ± {x.std(ddof=1) / len(x) ** 0.5:.2g}" for x in (a, b)]
        bold = "**" if level < 0.05 else ""
        label = f"{name.removesuffix('-v0')} ({len(a)}, {len(b)})" if not lines else ""
        lines.append(f"| {label} | {key} | {shown[0]} | {shown[1]} | {bold}{level:.3f}{bold} |")
        levels.append(level)
    return lines, levels


def first_rows(path: Path, rows: int) -> dict[str, np.ndarray]:
    """The whole episodes among the first `rows` rows of a file."""
    found = ogbench.read(path)
    if missing := [key for key in KEYS if key not in found]:
        raise UserError(f"{path} has no {', '.join(missing)}: these are no rows of OGBench's")
    ends = np.flatnonzero(found["terminals"][:rows])
    if len(ends) < 2:
        raise UserError(f"{path} has no two episodes among its first {rows:,} rows: ask for more --rows")
    arrays = {key: values for key, values in found.items() if values.ndim}
    return {key: values[: ends[-1] + 1] for key, values in arrays.items()}


if __name__ == "__main__":
    run_main(main)
