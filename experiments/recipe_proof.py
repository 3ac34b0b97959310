"""Holds D4RL's maze2d files against chains made by the recipe: ten statistics, steps, routes, two controls.

    python experiments/recipe_proof.py --real FOLDER --figures docs/images

FOLDER has official files, maze2d-{umaze,medium,large}-sparse-v1.hdf5, or their first rows. Takes 2 minutes on
a CPU. Writes `maze2d.json` and `maze2d_table.md` to `results/recipes/`, which docs/data/maze2d.md shows.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command_line import parse, run_main
from options import check_positive
from progress import Bar

from jdp import plotting
from jdp.data import d4rl
from jdp.data.recipes import maze2d as recipe
from jdp.data.recipes.maze2d_facts import (
    KEYS,
    STATISTICS,
    Columns,
    routes_followed,
    statistics,
    step_errors,
    wall_distance,
)
from jdp.errors import UserError
from jdp.evaluation.agreement import Spread, outside, spreads
from jdp.tasks import maze2d
from jdp.tasks.mazes import point_maze

VARIANTS = {
    "recipe": recipe.Variant(),
    "without noise": recipe.Variant(noise=0.0),
    "jittered goal": recipe.Variant(rounds=False),
}
EXACT = 1e-4  # m/s: what float32 leaves of a step


@dataclass(frozen=True)
class Config:
    """Which rows are held against which chains."""

    real: Path
    """Folder of official maze2d-*-v1 files, or of their first rows."""

    rows: int = 20_000
    """Rows of each file and of each chain."""

    chains: int = 50
    """Chains of the recipe and of each control, of the seeds from 1000 on: none is that of a dataset."""

    out: Path = Path("results/recipes")
    """Folder of the numbers and of the table."""

    figures: Path | None = None
    """Folder of the figures, if not the same."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    check_positive({"--rows": config.rows, "--chains": config.chains})
    real = official(config.real, config.rows)
    drawn: dict[str, list[dict[str, np.ndarray]]] = {maze: [] for maze in real}
    made = {variant: chains(config, variant, drawn) for variant in VARIANTS}
    measured = {maze: statistics(columns, maze) for maze, columns in real.items()}
    spread = {
        variant: {maze: spreads(found) for maze, found in by_maze.items()}
        for variant, by_maze in made.items()
    }
    facts = {maze: steps_and_routes(maze, columns) for maze, columns in real.items()}
    text = table(measured, spread) + "\n\n" + steps_table(facts)
    count = f"{config.chains} chains of {config.rows:,} rows"
    controls = {name: spread[name] for name in VARIANTS if name != "recipe"}
    pictures = {
        "maze2d_agreement": plotting.agreement(
            measured, spread["recipe"], controls, title=f"D4RL's maze2d and {count} made by its recipe"
        ),
        "maze2d_distributions": plotting.distributions(
            {maze: shown(columns, maze) for maze, columns in real.items()},
            drawn,
            title=f"lines: D4RL's rows; bands: 95 % of {count}",
        ),
    }
    figures = config.figures or config.out
    try:
        for folder in (config.out, figures):
            folder.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures.items():
            figure.savefig(figures / f"{name}.png", dpi=150)
        numbers = {"rows": config.rows, "chains": config.chains, "real": measured, "steps_and_routes": facts}
        numbers["spreads"] = rounded(spread)
        (config.out / "maze2d.json").write_text(json.dumps(numbers, indent=1) + "\n")
        (config.out / "maze2d_table.md").write_text(text + "\n")
    except OSError as error:
        raise UserError(f"could not write to {config.out} or {figures}: {error}") from error
    print(f"{text}\n\nwrote {config.out}/maze2d.json, maze2d_table.md; {', '.join(pictures)} in {figures}")


def official(folder: Path, rows: int) -> dict[str, Columns]:
    """The first `rows` rows of the files in `folder`, by maze."""
    found: dict[str, Columns] = {}
    for path in sorted(folder.glob("*.hdf5")):
        which = maze2d.parse(path.name)
        if which is None or "dense" in path.name:
            continue
        columns = {key: values[:rows] for key, values in d4rl.read_keys(path, KEYS).items()}
        if missing := [key for key in KEYS if key not in columns]:
            raise UserError(f"{path} has no {', '.join(missing)}: it is no maze2d file")
        if len(columns["rewards"]) < rows:
            raise UserError(f"{path} has {len(columns['rewards']):,} rows; choose --rows no larger")
        found[which.maze] = columns
    if not found:
        raise UserError(f"--real {folder}: no file of it is called maze2d-umaze-sparse-v1.hdf5 or the like")
    return {maze: found[maze] for maze in recipe.ROWS if maze in found}


def chains(
    config: Config, variant: str, drawn: Mapping[str, list[dict[str, np.ndarray]]]
) -> dict[str, list[dict[str, float]]]:
    """The statistics of chains in the mazes of `drawn`, which takes what is drawn of the recipe's own."""
    found: dict[str, list[dict[str, float]]] = {maze: [] for maze in drawn}
    with Bar(variant, config.chains * len(drawn), "chain") as bar:
        for seed in range(1000, 1000 + config.chains):
            for maze in drawn:
                columns = recipe.collect(maze, seed, config.rows, variant=VARIANTS[variant])
                found[maze].append(statistics(columns, maze))
                if variant == "recipe":
                    drawn[maze].append(shown(columns, maze))
                bar.at(sum(map(len, found.values())))
    return found


def steps_and_routes(maze: str, columns: Columns) -> dict[str, float]:
    errors, near = step_errors(columns, maze)
    followed, segments = routes_followed(columns, maze)
    return {
        "steps": len(errors),
        "exact": int((errors < EXACT).sum()),
        "near": int(near.sum()),
        "exact near a wall": int((errors[near] < EXACT).sum()),
        "largest": float(errors.max()),
        "routes followed": followed,
        "routes": segments,
    }


def shown(columns: Columns, maze: str) -> dict[str, np.ndarray]:
    """The quantities of which histograms are drawn."""
    return {
        "speed (m/s)": np.linalg.norm(columns["infos/qvel"], axis=1),
        "first action": columns["actions"][:, 0],
        "second action": columns["actions"][:, 1],
        "distance to a wall (m)": wall_distance(point_maze(maze), columns["infos/qpos"].astype(np.float64)),
        "rows of a segment": np.diff(np.flatnonzero(columns["timeouts"]), prepend=-1),
    }


Spreads = Mapping[str, Mapping[str, Mapping[str, Spread]]]  # variant -> maze -> statistic


def table(measured: Mapping[str, Mapping[str, float]], spread: Spreads) -> str:
    """One row a statistic: D4RL's value and the recipe's range for each maze; the verdicts below."""
    mazes = list(measured)
    lines = ["| statistic | " + " | ".join(f"{maze}: D4RL | recipe, 95 %" for maze in mazes) + " |"]
    lines.append("|---" * (1 + 2 * len(mazes)) + "|")
    for name, meaning in STATISTICS.items():
        cells = []
        for maze in mazes:
            found, value = spread["recipe"][maze][name], measured[maze][name]
            number = f"{value:.4g}" if found.holds(value) else f"**{value:.4g}**"
            cells += [number, f"{found.low:.4g} to {found.high:.4g}"]
        lines.append(f"| {meaning} | " + " | ".join(cells) + " |")
    for variant in spread:
        verdicts = [verdict(outside(measured[maze], spread[variant][maze])) for maze in mazes]
        cells = " | ".join(f"{text} | " for text in verdicts)
        lines.append(f"| outside of the range of: {variant} | {cells} |")
    return "\n".join(lines)


def verdict(names: list[str]) -> str:
    return f"{len(names)} of {len(STATISTICS)}" + (f" ({', '.join(names)})" if 0 < len(names) < 4 else "")


def steps_table(facts: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        f"| D4RL's rows | steps that end within {EXACT:g} m/s of the next row | of these near a wall | "
        "largest error | segments on the planner's route |",
        "|---|---|---|---|---|",
    ]
    for maze, f in facts.items():
        lines.append(
            f"| {maze} | {f['exact']:,} of {f['steps']:,} | {f['exact near a wall']:,} of {f['near']:,} | "
            f"{f['largest']:.1e} m/s | {f['routes followed']} of {f['routes']} |"
        )
    return "\n".join(lines)


def rounded(spread: Spreads) -> dict[str, Any]:
    as_is: Callable[[Spread], list[float]] = lambda s: [float(f"{v:.6g}") for v in s]  # noqa: E731
    return {v: {m: {n: as_is(s) for n, s in by.items()} for m, by in at.items()} for v, at in spread.items()}


if __name__ == "__main__":
    run_main(main)
