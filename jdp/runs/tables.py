"""Cells as the tables of a paper: datasets beside methods, a row a cell; as Markdown and LaTeX.

from jdp.runs.cells import pool_seeds
from jdp.runs.frame import read_runs
cells = pool_seeds(read_runs("results").query("status == 'finished' and score_name == 'normalised score'"))
print(markdown(matrix(cells)))
"""

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd

from jdp.evaluation import Published, barnard, bootstrap_interval, published
from jdp.evaluation.statistics import difference_from, welch
from jdp.evaluation.summary import with_interval
from jdp.runs.cells import DATA, is_success_row
from jdp.runs.directories import config_hash
from jdp.runs.texts import Grid
from jdp.types import Json

LEVEL = 0.05  # of the tests behind bold type
SEEDS_FOR_BOOTSTRAP = 3  # the percentile bootstrap of two values says nothing but these
DECISIONS = {
    "decision, median": "latency",
    "95th percentile": "latency_95",
    "99th percentile": "latency_99",
}
SEEDS_FOR_BOLD = 5  # Welch's test of fewer separates hardly anything, and bold would stand everywhere


def matrix(cells: pd.DataFrame) -> Grid:
    """One row a method, one column a dataset; beside a dataset of D4RL what is published for it.

    `cells` have one score name. With two datasets or more the last column is the IQM over them.
    """
    unit, cells = cells.score_name.iloc[0], cells.assign(row=rows_of(cells), column=columns_of(cells))
    bold = {at for _, column in cells.groupby("column", sort=False) for at in best(column)}
    texts = [f"**{text}**" if at in bold else text for at, text in intervals(cells).items()]
    by_data = cells.sort_values(DATA).drop_duplicates("column")
    rows, columns = cells.row.unique(), list(by_data.column)
    table = cells.assign(text=texts).pivot(index="row", columns="column", values="text")
    table = table.reindex(index=rows, columns=columns).fillna("-").rename_axis("method").reset_index()
    methods = cells.drop_duplicates("row").method
    copies: dict[str, Published] = {}
    for column, name in zip(columns, by_data.dataset, strict=True):
        if unit != "return" and (known := published(name)):
            at, own = list(table.columns).index(column) + 1, cells[cells.column == column]
            table.insert(at, "published", [copied(known.get(m)) for m in methods], allow_duplicates=True)
            less = [
                less_published(own[own.row == row], known.get(m))
                for row, m in zip(rows, methods, strict=True)
            ]
            table.insert(at + 1, "difference (95 %)", less, allow_duplicates=True)
            copies |= {method: known[method] for method in methods if method in known}
    notes = [*notes_of(cells), *bold_notes(cells, bool(bold))]
    if len(columns) > 1 and unit != "return":
        by_row = [aggregated(found, len(columns)) for _, found in cells.groupby("row", sort=False)]
        table[f"IQM of {len(columns)} datasets"] = by_row
        notes.append(
            "IQM: interquartile mean over the seeds of all datasets; its interval is a bootstrap of the "
            f"seeds of each dataset, none with fewer than {SEEDS_FOR_BOOTSTRAP}, too narrow with a handful."
        )
    if (cells.groupby("row").updates.nunique() > 1).any():
        notes.append("A row may differ in updates from dataset to dataset: see the cells.")
    if copies:
        notes.append(f"Published: copied, not run here. {sources(copies.values())}")
        notes.append(
            "Difference: ours less the published mean, with Welch's interval where its spread is known."
        )
    return Grid(f"{unit} (95 %), last checkpoint", table, notes)


def rows_of(cells: pd.DataFrame) -> pd.Series:
    """The names of methods; one that two kinds share gets its kind, and no cell is lost to another."""
    kinds = cells.groupby("label").kind.transform("nunique")
    names = cells.label.where(kinds == 1, cells.label + ", " + cells.kind)
    again = cells.assign(name=names).duplicated(["name", *DATA])
    return names.where(~again, names + [f", setting {config_hash(json.loads(s))}" for s in cells.setting])


def columns_of(cells: pd.DataFrame) -> pd.Series:
    """The datasets' own names; where others have one too, with the beginning of its SHA-256, or its task."""
    several = cells.groupby("dataset")[["sha256", "task"]].transform("nunique") > 1
    data = (", SHA-256 " + cells.sha256.str[:8]).where(several.sha256, "")
    return cells.dataset + data + (", played in " + cells.task).where(several.task, "")


def intervals(cells: pd.DataFrame) -> pd.Series:
    """ "mean [low, high]" of every cell."""
    return cells[["score", "low", "high"]].apply(lambda cell: with_interval(*cell), axis=1)


def tasks(cells: pd.DataFrame) -> dict[str, np.ndarray]:
    """The seeds' scores of one method by dataset, as the aggregates take them."""
    named = {" ".join(data): scores for *data, scores in cells[[*DATA, "scores"]].itertuples(index=False)}
    return dict(sorted(named.items()))


def aggregated(cells: pd.DataFrame, datasets: int) -> str:
    """The IQM of one method over all datasets, with its interval where there are seeds enough to resample."""
    if len(cells) < datasets or cells.preset.nunique() > 1:
        return "-"
    found = bootstrap_interval(tasks(cells))
    return with_interval(*found) if cells.seeds.min() >= SEEDS_FOR_BOOTSTRAP else f"{found.estimate:.1f}"


def best(cells: pd.DataFrame) -> list[int]:
    """Which of `cells` on one dataset are the best one and those that a test does not tell from it."""
    top = cells.iloc[int(np.argmax(cells.score.astype(float).fillna(-np.inf)))]
    if len(cells) < 2 or (not is_success_row(top) and cells.seeds.min() < SEEDS_FOR_BOLD):
        return []

    def p(cell: pd.Series) -> float:
        if is_success_row(top):
            return barnard(cell.episodes_of / 100, top.episodes_of / 100)
        return welch(cell.scores, top.scores)

    return [at for at, cell in cells.iterrows() if at == top.name or p(cell) >= LEVEL]  # type: ignore[misc]


def copied(row: Published | None) -> str:
    """A published score with the spread that its paper gives; "-" where there is none."""
    if row is None:
        return "-"
    return f"{row.score:.1f}" + (f" ± {row.spread:.1f}" if np.isfinite(row.spread) else "")


def less_published(cell: pd.DataFrame, row: Published | None) -> str:
    """The score of a table's cell less the published one, with Welch's interval; "-" where one is missing."""
    if row is None or cell.empty:
        return "-"
    found = difference_from(cell.iloc[0].scores, row.score, row.standard_error, row.runs)
    text = with_interval(*found)
    return text if text.startswith("-") else f"+{text}"


def notes_of(cells: pd.DataFrame) -> list[str]:
    """What the numbers of one table and their intervals are."""
    seeds = " to ".join(map(str, dict.fromkeys((cells.seeds.min(), cells.seeds.max()))))
    notes = [f"Intervals: Student's t over the training seeds ({seeds} a cell)."]
    if is_success_row(cells.iloc[0]):
        notes = [
            f"Intervals: Clopper-Pearson over the episodes of all training seeds ({seeds} a cell); they "
            "speak of the policies that were played, not of other seeds."
        ]
    known = cells[cells.behaviour.notna()].sort_values(DATA).drop_duplicates(["dataset", "behaviour"])
    for dataset, behaviour in zip(known.dataset, known.behaviour, strict=True):
        notes.append(f"{dataset}: the dataset's own episodes score {behaviour:.1f}.")
    if (cells.kind == "arm").any():
        notes.append("The arms of one run share a diffuser and world model, and the time of training.")
    if ((cells.kind == "agent") & cells.method.str.contains("(", regex=False)).any():
        notes.append("In brackets the world model of a model-based agent, which the seeds of a run share.")
    return notes


def bold_notes(cells: pd.DataFrame, bold: bool) -> list[str]:
    """What bold type means, where a table has it or might have."""
    success = is_success_row(cells.iloc[0])
    if not bold:
        few = f"Bold needs {SEEDS_FOR_BOLD} seeds a cell: fewer do not tell methods apart."
        return [] if success else [few]
    test = "Barnard's exact test over all episodes" if success else "Welch's t test over the seeds"
    return [
        f"Bold: the best of a column, and all that {test} does not tell from it (p at least {LEVEL}, not "
        "corrected for the number of methods)."
    ]


def sources(copies: Iterable[Published]) -> str:
    """Where every method's copied numbers stand; methods of one source together."""
    methods: dict[str, list[str]] = {}
    for row in copies:
        over = "" if row.runs is None else f" over {row.runs} runs"
        spread = f" (±: {row.spread_is}{over})" if np.isfinite(row.spread) else ""
        methods.setdefault(f"{row.source}{spread}", []).append(row.method)
    return " ".join(f"{', '.join(names)}: {source}." for source, names in methods.items())


def details(cells: pd.DataFrame, *, latency: bool = False) -> Grid:
    """One row a cell: what its score rests on and what it cost; with `latency` the time of a decision too."""
    first = cells.iloc[0]
    table = {"method": cells.label, "kind": cells.kind} if latency else {"method": cells.label}
    table |= {} if latency else {"dataset": columns_of(cells)}
    if cells.before.notna().any():
        table |= {"before": ["" if np.isnan(score) else f"{score:.1f}" for score in cells.before]}
    table |= {(f"{first.score_name} (95 %)" if latency else "score"): intervals(cells)}
    table |= {"of each seed": [" ".join(f"{s:.1f}" for s in scores) for scores in cells.scores]}
    table |= {"episodes a seed": cells.episodes.map(str)}
    if latency:
        table |= {name: milliseconds(cells[column]) for name, column in DECISIONS.items()}
        table |= at_rates(cells)
    if cells.steps.notna().any():
        table |= {"steps a seed": [f"{n:,}" if pd.notna(n) else "" for n in cells.steps]}
    table |= {"updates": [f"{n:,}" for n in cells.updates], "preset": cells.preset}
    spent = zip(cells.minutes, cells.hardware, strict=True)
    table |= {"training": [f"{minutes:.1f} min, {hardware}" for minutes, hardware in spent]}
    notes = ["Training: all seeds of a cell together."]
    if not latency:
        return Grid("Cells", pd.DataFrame(table), notes, left=2)
    notes = [*notes_of(cells), *notes, "Decisions are timed in one environment, after compilation."]
    if cells.at_rates.map(len).any():
        notes.append("At so many Hz the task does not wait: a decision acts as many ticks late as it takes.")
    return Grid(f"{first.dataset}, {first.task}: last checkpoint", pd.DataFrame(table), notes, left=2)


def milliseconds(seconds: pd.Series) -> list[str]:
    """ "4.1 ms", or "-" where it was not measured."""
    return ["-" if pd.isna(s) else f"{1e3 * s:.1f} ms" for s in seconds]


def at_rates(cells: pd.DataFrame) -> dict[str, list[str]]:
    """By rate: the mean score in a task that ticks so often and does not wait, and how many ticks late."""
    rates = sorted({at["hz"] for found in cells.at_rates for at in found})

    def text(found: list[Json], hz: float) -> str:
        same = [at for at in found if at["hz"] == hz]
        ticks = "/".join(dict.fromkeys(str(at["ticks"]) for at in same))
        scores = [score for at in same for score in at["seeds"]]
        return f"{np.mean(scores):.1f} ({ticks} late)" if scores else "-"

    return {f"at {hz:g} Hz": [text(found, hz) for found in cells.at_rates] for hz in rates}


def records(cells: pd.DataFrame) -> pd.DataFrame:
    """The table in long form: one row a cell, and one for every number that was copied."""
    plain = ["kind", "dataset", "sha256", "score_name", "score", "low", "high"]
    success = cells.score_name == "success %"
    rows = cells[plain].assign(
        interval=np.where(success, "Clopper-Pearson", "Student's t"),
        seeds=cells.seeds,
        seed_scores=[" ".join(f"{s:.2f}" for s in scores) for scores in cells.scores],
        **{name: cells[name] for name in ("episodes", "updates", "steps", "before", "preset")},
        minutes=cells.minutes.astype(float).round(1),
        hardware=cells.hardware,
        auroc=cells.auroc.astype(float).round(3),
        median_ms=1e3 * cells.latency.astype(float),
        percentile_95_ms=1e3 * cells.latency_95.astype(float),
        commit=cells.commits.map(" ".join),
        source="run here",
        command=cells.commands.map(" ; ".join),
    )
    rows.insert(0, "method", cells.label)
    shown = cells.drop_duplicates(["dataset", "method"])
    known = (published(data).get(method) for data, method in zip(shown.dataset, shown.method, strict=True))
    copies = [
        {
            "method": row.printed_as,
            "kind": "published",
            "dataset": row.dataset,
            "score_name": "normalised score",
            "score": row.score,
            "source": f"copied from {row.source}, not run here",
        }
        for row in known
        if row is not None
    ]
    return pd.concat([rows.astype(object), pd.DataFrame(copies, dtype=object)]) if copies else rows
