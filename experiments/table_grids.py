"""Cells as tables: datasets beside methods, and a row a cell; what their numbers are stands under them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scoring import with_interval
from table_cells import Cell, is_success
from table_text import Grid

from jdp.agents import MODEL_BASED
from jdp.evaluation import Published, barnard, bootstrap_interval, published
from jdp.evaluation.statistics import welch
from jdp.runs.directories import config_hash

LEVEL = 0.05  # of the tests behind bold type
SEEDS_FOR_BOOTSTRAP = 3  # the percentile bootstrap of two values says nothing but these
SEEDS_FOR_BOLD = 5  # Welch's test of fewer separates hardly anything, and bold would stand everywhere


def matrix(cells: Sequence[Cell]) -> Grid:
    """One row a method, one column a dataset; beside a dataset of D4RL what is published for it.

    `cells` have one score name. With two datasets or more the last column is the IQM over them.
    """
    unit, datasets = cells[0].first["score_name"], list(dict.fromkeys(c.data for c in cells))
    known = {data: published(data[0]) if unit == "normalised score" else {} for data in datasets}
    bold = {id(cell) for data in datasets for cell in best([c for c in cells if c.data == data])}
    aggregate = len(datasets) > 1 and unit != "return"
    head = ["method"]
    for data in datasets:
        head += [f"{label(data, datasets)}", *["published"] * bool(known[data])]
    head += [f"IQM of {len(datasets)} datasets"] * aggregate
    rows = []
    for method, found in by_method(cells).items():
        row = [method]
        for data in datasets:
            text = with_interval(found[data].interval) if data in found else "-"
            row.append(f"**{text}**" if data in found and id(found[data]) in bold else text)
            if known[data]:
                row.append(copied(known[data].get(next(iter(found.values())).first["method"])))
        if aggregate:
            alike = len({cell.first["preset"] for cell in found.values()}) == 1
            row.append(aggregated(found) if alike and len(found) == len(datasets) else "-")
        rows.append(row)
    shown = {c.first["method"] for c in cells}
    copies = {row.method: row for data in datasets for row in known[data].values() if row.method in shown}
    lines = [*notes(cells), *bold_notes(cells, bool(bold))]
    if aggregate:
        lines.append(
            "IQM: interquartile mean over the seeds of all datasets; its interval is a bootstrap of the "
            f"seeds of each dataset, none with fewer than {SEEDS_FOR_BOOTSTRAP}, too narrow with a handful."
        )
    if any(len({c.first["updates"] for c in found.values()}) > 1 for found in by_method(cells).values()):
        lines.append("A row may differ in updates from dataset to dataset: see the cells.")
    if copies:
        lines.append(f"Published: copied, not run here. {sources(list(copies.values()))}")
    return Grid(f"{unit} (95 %), last checkpoint", head, rows, lines)


def by_method(cells: Sequence[Cell]) -> dict[str, dict[tuple[str, str, str], Cell]]:
    """The cells of every method by dataset; a name that two kinds of method share gets its kind."""
    kinds = {c.method: {d.kind for d in cells if d.method == c.method} for c in cells}
    found: dict[str, dict[tuple[str, str, str], Cell]] = {}
    for cell in cells:
        name = cell.method if len(kinds[cell.method]) == 1 else f"{cell.method}, {cell.kind}"
        if cell.data in found.get(name, {}):  # no cell is lost, however alike their names
            name += f", setting {config_hash(cell.setting)}"
        found.setdefault(name, {})[cell.data] = cell
    return found


def by_task(found: dict[tuple[str, str, str], Cell]) -> dict[str, np.ndarray]:
    """The seeds' scores of a method by dataset, as the aggregates take them."""
    return {" ".join(data): cell.seeds for data, cell in sorted(found.items())}


def aggregated(found: dict[tuple[str, str, str], Cell]) -> str:
    """The IQM over datasets, with its interval where there are seeds enough to resample."""
    value = bootstrap_interval(by_task(found))
    enough = min(len(cell.seeds) for cell in found.values()) >= SEEDS_FOR_BOOTSTRAP
    return with_interval(value) if enough else f"{value.estimate:.1f}"


def best(cells: Sequence[Cell]) -> list[Cell]:
    """The best of `cells` on one dataset and all that a test does not tell from it; none to compare: none."""
    top = max(cells, key=lambda c: np.nan_to_num(c.interval.estimate, nan=-np.inf))
    if len(cells) < 2 or (not is_success(top.first) and min(len(c.seeds) for c in cells) < SEEDS_FOR_BOLD):
        return []
    if is_success(top.first):
        return [c for c in cells if c is top or barnard(c.won, top.won) >= LEVEL]
    return [c for c in cells if c is top or welch(c.seeds, top.seeds) >= LEVEL]


def label(data: tuple[str, str, str], datasets: Sequence[tuple[str, str, str]]) -> str:
    """The dataset's own name; where others have it too, with the beginning of its SHA-256, or its task."""
    name, sha, task = data
    like = [d for d in datasets if d[0] == name]
    other_data = f", SHA-256 {sha[:8]}" if len({d[1] for d in like}) > 1 else ""
    other_task = f", played in {task}" if len({d[2] for d in like}) > 1 else ""
    return name + other_data + other_task


def copied(row: Published | None) -> str:
    if row is None:
        return "-"
    return f"{row.score:.1f}" + (f" ± {row.spread:.1f}" if np.isfinite(row.spread) else "")


def notes(cells: Sequence[Cell]) -> list[str]:
    """What the numbers of one table and their intervals are."""
    counts = sorted({len(cell.seeds) for cell in cells})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    lines = [f"Intervals: Student's t over the training seeds ({seeds} a cell)."]
    if is_success(cells[0].first):
        lines = [
            f"Intervals: Clopper-Pearson over the episodes of all training seeds ({seeds} a cell); they "
            "speak of the policies that were played, not of other seeds."
        ]
    for data in dict.fromkeys(cell.data for cell in cells):
        first = next(cell.first for cell in cells if cell.data == data)
        if first.get("behaviour") is not None:
            lines.append(f"{data[0]}: the dataset's own episodes score {first['behaviour']:.1f}.")
    if any(cell.kind == "arm" for cell in cells):
        lines.append("The arms of one run share a diffuser and world model, and the time of training.")
    if any(cell.method.partition(" ")[0] in MODEL_BASED for cell in cells):
        lines.append("In brackets the world model of a model-based agent, which the seeds of a run share.")
    return lines


def bold_notes(cells: Sequence[Cell], bold: bool) -> list[str]:
    """What bold type means, where a table has it or might have."""
    success = is_success(cells[0].first)
    if not bold:
        return (
            [] if success else [f"Bold needs {SEEDS_FOR_BOLD} seeds a cell: fewer do not tell methods apart."]
        )
    test = "Barnard's exact test over all episodes" if success else "Welch's t test over the seeds"
    return [
        f"Bold: the best of a column, and all that {test} does not tell from it (p at least {LEVEL}, not "
        "corrected for the number of methods)."
    ]


def sources(copies: Sequence[Published]) -> str:
    """Where every method's copied numbers stand; methods of one source together."""
    methods: dict[str, list[str]] = {}
    for row in copies:
        spread = f" (±: {row.spread_is})" if np.isfinite(row.spread) else ""
        methods.setdefault(f"{row.source}{spread}", []).append(row.method)
    return " ".join(f"{', '.join(names)}: {source}." for source, names in methods.items())


def details(cells: Sequence[Cell]) -> Grid:
    """One row a cell: what its score rests on, and what it cost."""
    head = ["method", "dataset", "score", "of each seed", "episodes a seed", "updates", "preset", "training"]
    datasets = list(dict.fromkeys(c.data for c in cells))
    rows = [
        [
            cell.method,
            label(cell.data, datasets),
            with_interval(cell.interval),
            " ".join(f"{s:.1f}" for s in cell.seeds),
            f"{cell.first['episodes']}",
            f"{cell.first['updates']:,}",
            cell.first["preset"],
            f"{cell.minutes:.1f} min, {cell.hardware}",
        ]
        for cell in cells
    ]
    return Grid("Cells", head, rows, ["Training: all seeds of a cell together."], left=2)


def records(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The table in long form: one row a cell, and one for every number that was copied."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        mean, low, high = cell.interval
        rows.append(
            {
                "method": cell.method,
                "kind": cell.kind,
                "dataset": cell.data[0],
                "sha256": cell.data[1],
                "score_name": cell.first["score_name"],
                "score": mean,
                "low": low,
                "high": high,
                "interval": "Clopper-Pearson" if is_success(cell.first) else "Student's t",
                "seeds": len(cell.seeds),
                "seed_scores": " ".join(f"{s:.2f}" for s in cell.seeds),
                "episodes": cell.first["episodes"],
                "updates": cell.first["updates"],
                "preset": cell.first["preset"],
                "minutes": round(cell.minutes, 1),
                "hardware": cell.hardware,
                "median_ms": cell.latency("median"),
                "percentile_95_ms": cell.latency("percentile_95"),
                "commit": " ".join(dict.fromkeys(str(run["commit"]) for run in cell.runs)),
                "source": "run here",
                "command": " ; ".join(run["command"] for run in cell.runs),
            }
        )
    empty = dict.fromkeys(rows[0], "")
    for data in dict.fromkeys(c.data for c in cells):
        shown = {c.first["method"] for c in cells if c.data == data}
        for row in (row for row in published(data[0]).values() if row.method in shown):
            source = f"copied from {row.source}, not run here"
            facts = {"method": row.printed_as, "dataset": row.dataset, "score": row.score, "source": source}
            rows.append(empty | facts | {"kind": "published", "score_name": "normalised score"})
    return rows


def commands(cells: Sequence[Cell]) -> list[str]:
    """The command behind every cell, as a block of Markdown."""
    made = dict.fromkeys(f"    {run['command']}" for cell in cells for run in cell.runs)
    return ["The cells were made by", "", *made, ""]
