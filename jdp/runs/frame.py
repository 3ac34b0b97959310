"""All run directories below a folder as one pandas table.

from jdp.runs.frame import read_runs
runs = read_runs("results")
runs[runs.status == "finished"].groupby(["dataset", "method"]).score.describe()
"""

from pathlib import Path

import pandas as pd

from jdp.runs.directories import dataset_folder
from jdp.runs.kept import kept_runs
from jdp.runs.records import Row, read_run
from jdp.runs.sweeps import read_cells, read_every_cell, row_without_run

COLUMNS = {
    "id": "the directory below the folder that was read, and ~arm where a run scores several",
    "path": "the directory",
    "experiment": "the script that made it: offline_rl, plan, ...",
    "dataset": 'the name of the data and where they come from: "hopper-medium (bundled, d4rl-style)"',
    "env": "the dataset as it was asked for: hopper-medium",
    "sha256": "of the data",
    "task": "the environment that was played",
    "kind": "agent, planner, policy, or arm (of pgd_d4rl.py)",
    "method": "what was trained; in brackets its world model, or the arm",
    "arm": "None where a run scores one method",
    "status": "finished, unfinished, or broken; failed, running, waiting where a sweep says so",
    "error": "what went wrong, one line",
    "progress": "of an unfinished run: what it logged last",
    "preset": "smoke, cpu or paper",
    "seed": "the first one",
    "seeds": "how many",
    "updates": "of training",
    "episodes": "played by each seed's last checkpoint",
    "score_name": "normalised score, success %, or return",
    "score": "mean of `scores`",
    "low": "95 % interval: Clopper-Pearson over all episodes for success %, else Student's t over the seeds",
    "high": "its upper end",
    "scores": "[seeds], means over episodes",
    "returns": "[seeds, episodes]",
    "success": "[seeds, episodes] of 0 and 1, or None",
    "score_range": "the returns whose scores are 0 and 100, or None",
    "behaviour": "the score of the dataset's own episodes",
    "before": "of what goes on from a trained policy: the mean score before it learned",
    "steps": "of the task that each seed learned from; of methods that learn while they act",
    "auroc": "of an arm: how well the data's likelihood tells its windows from the data's",
    "latency": "seconds a decision, median",
    "latency_95": "its 95th percentile",
    "latency_99": "its 99th percentile",
    "at_rates": "scores in tasks that do not wait (`jdp.evaluation.scores_at_rates`), or None",
    "minutes": "of training, all seeds together",
    "hardware": "2 CPU cores, or 8 x NVIDIA H200",
    "command": "as it can be given again",
    "commit": "of the code",
    "started": "2026-01-31 12:00",
    "sweep": "the sweeps that it is a cell of, or None",
    "cell": "its name there",
    "config": "every setting, nested",
    "facts": "versions, devices, the configuration's hash",
}
WHOLE = ("seed", "seeds", "updates", "episodes", "steps")
TIMES = ("latency", "latency_95", "latency_99", "minutes")
REAL = ("score", "low", "high", "behaviour", "before", "auroc", *TIMES)
NOT_EXPERIMENTS = ("tables", "sweeps", "dataset_cards")  # other folders of results/
DEPTH = 6  # of folders that are looked into


def read_runs(out: str | Path = "results", sweep: str | None = None) -> pd.DataFrame:
    """One row for everything that the runs below `out` score: a method, or every arm of `pgd_d4rl.py`.

    The columns are `COLUMNS`. Nothing is left out: unfinished runs, and directories that cannot be read, are
    rows whose `status` and `error` say so. With `sweep` the rows are the cells of `sweeps/<sweep>/`, in their
    order, those too that have no run; runs that are gone, but kept beside the table of the sweep
    (`jdp.runs.kept`), count. Without that folder the rows are those that are kept.

    Raises:
        UserError: if there is no such sweep, or it cannot be read.
    """
    out = Path(out)
    runs: dict[str, list[Row]] = {}
    for folder in run_folders(out):
        runs.setdefault(_name(folder, out), []).extend(read_run(folder, out))
    kept = {_name(folder, out): read_run(folder, out) for folder in kept_runs(out, sweep)} if sweep else {}
    if sweep and kept and not (out / "sweeps" / sweep).exists():
        return _frame(kept)
    runs = kept | runs
    chosen = {} if sweep else runs
    for cell in read_cells(out, sweep) if sweep else read_every_cell(out):
        parts = Path(cell["run"] or "").parts  # below `out`, wherever that was then
        ends = ("/".join(parts[-n:]) for n in (3, 2, 1) if parts)
        name = next((end for end in ends if end in runs), None)
        if name is None and sweep is None:
            continue
        rows = runs[name] if name else [row_without_run(cell) | {"path": cell["run"] or ""}]
        for row in rows:
            sweeps = dict.fromkeys([*str(row["sweep"] or cell["sweep"]).split(", "), cell["sweep"]])
            row |= {"sweep": ", ".join(sweeps), "cell": cell["name"]}
            # A finished run knows better than its sweep: a failed cell may have been run again by hand.
            if row["status"] == "unfinished" and cell["status"] in ("failed", "running"):
                row |= {"status": cell["status"], "error": cell["error"]}
        chosen[name or f"cell {cell['name']}"] = rows
    return _frame(chosen)


def _name(folder: Path, out: Path) -> str:
    """What a run is called wherever the results are."""
    return "/".join(folder.relative_to(out).parts[-3:])


def _frame(runs: dict[str, list[Row]]) -> pd.DataFrame:
    every = [dict.fromkeys(COLUMNS) | row for rows in runs.values() for row in rows]
    return _typed(pd.DataFrame(every, columns=list(COLUMNS), dtype=object))


def on_dataset(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows on the dataset `name`: as a script was given it, as its folder is called, or its own name."""
    folders = runs.path.map(lambda path: Path(str(path)).parent.name)
    own = runs.dataset.map(lambda found: str(found).partition(" ")[0])
    return runs[(runs.env == name) | (folders == dataset_folder(name)) | (own == name)]


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as numbers, missing where a file holds none."""
    for column in (*WHOLE, *REAL):
        known = frame[column].map(lambda value: isinstance(value, int | float)).astype(bool)
        values = frame[column].where(known).astype(float)
        exact = values.where(values.abs() < 2**53).round()
        frame[column] = exact.astype("Int64") if column in WHOLE else values
    return frame


def run_folders(out: Path) -> list[Path]:
    """All run directories below `out`, each once: those that hold a `config.json`, at any depth and of any
    name, and those that stand where a run would (<experiment>/<dataset>/<run>) and hold none."""
    found: dict[Path, Path] = {}

    def visit(folder: Path, depth: int) -> None:
        if depth and (folder / "config.json").is_file():
            found.setdefault(folder.resolve(), folder)
            return
        before, parts = len(found), folder.relative_to(out).parts
        try:
            inner = sorted(p for p in folder.iterdir() if p.is_dir()) if depth < DEPTH else []
        except OSError:
            inner = []
        for child in inner:
            if depth or child.name not in NOT_EXPERIMENTS:
                visit(child, depth + 1)
        # Hidden folders without a run are those of editors and notebooks.
        other = any(part.startswith(".") for part in parts) or not set(parts).isdisjoint(NOT_EXPERIMENTS)
        if depth == 3 and len(found) == before and not other:
            found.setdefault(folder.resolve(), folder)

    visit(out, 0)
    return list(found.values())
