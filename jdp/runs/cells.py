"""Runs pooled into the cells of a table: one method with one setting on one dataset, all its seeds."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jdp.evaluation.scores import normalised_score
from jdp.evaluation.statistics import interval, success_interval
from jdp.runs.directories import config_hash
from jdp.runs.settings import flat
from jdp.types import Json

ORDER = ("agent", "planner", "policy", "arm")  # of kinds; others follow
DATA = ["dataset", "sha256", "task"]  # a name may stand on other data or tasks
CELL = ["kind", "method", *DATA, "setting"]
# Of a configuration, what makes no other setting: the seeds, names of the same data, pictures.
PLAYED = ("evaluation.pictures", "evaluation.decisions", "evaluation.hz")
NO_SETTING = ("seed", "seeds", "env", "source", *PLAYED)
# Options that older runs do not know, with what those did; wherever they stand in a configuration.
LATER: Json = {"precision": "float32", "accumulate": 1, "groups": []}
MEDIANS = ("auroc", "latency", "latency_95", "latency_99")
SHOWN = 3  # settings in a method's name; where more differ it gets their hash


def drop_repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """Scored rows of `read_runs` without those that another repeats: of a method with one setting on one
    dataset from one first seed the row of most seeds stays, else the newest."""
    runs = runs[runs.scores.notna()].copy()
    runs["setting"] = [json.dumps(setting_of(config), sort_keys=True) for config in runs.config]
    runs["task"] = runs.task.fillna("")
    runs["name"] = [str(path).rpartition("/")[2] for path in runs.path]
    kept = runs.sort_values(["seeds", "name"], kind="stable").drop_duplicates([*CELL, "seed"], keep="last")
    return kept.drop(columns="name").sort_values("seed", kind="stable")


def pool_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, of the finished rows of `read_runs` but for those that another repeats.

    Scores and intervals are of all seeds of all runs, minutes their sum; the rest is of the first run.
    `label` is the method's name with the settings in which its cells on one dataset differ; `episodes_of` is
    `[seeds, episodes]`, the scores of single episodes; `commands` and `commits` are those of all runs.
    """
    cells = [_cell(group) for _, group in drop_repeated(runs).groupby(CELL, sort=False, dropna=False)]
    if not cells:
        return pd.DataFrame(columns=[*runs.columns, "setting", "label", "episodes_of", "commands", "commits"])
    found = pd.DataFrame(cells)
    found["label"] = labels(found)
    found["rank"] = [ORDER.index(kind) if kind in ORDER else len(ORDER) for kind in found.kind]
    by = ["rank", "kind", "method", "label", *DATA]
    return found.sort_values(by, kind="stable").drop(columns="rank").reset_index(drop=True)


def _cell(runs: pd.DataFrame) -> dict[Any, Any]:
    first = runs.iloc[0]
    scores = np.concatenate([np.asarray(found, np.float64) for found in runs.scores])
    episodes = np.concatenate([episode_scores(run) for _, run in runs.iterrows()])
    score, low, high = success_interval(episodes / 100) if is_success_row(first) else interval(scores)
    medians = {name: float(np.median(runs[name].astype(float))) for name in MEDIANS}
    return {
        **first.to_dict(),
        **{"scores": scores, "seeds": len(scores), "episodes_of": episodes},
        **{"score": score, "low": low, "high": high},
        **medians,
        "at_rates": [rate for found in runs.at_rates for rate in found or ()],
        "minutes": runs.minutes.sum(),
        "hardware": ", ".join(sorted(set(runs.hardware.dropna()))),
        "commands": list(runs.command),
        "commits": list(dict.fromkeys(runs.commit.map(str))),
    }


def is_success_row(cell: pd.Series) -> bool:
    """Whether the scores of a run, or of a cell of runs, are percentages of episodes that reach a goal."""
    return cell.score_name == "success %"


def episode_scores(run: pd.Series) -> np.ndarray:
    """`[seeds, episodes]`, what the means of are the run's scores."""
    if run.returns is None:
        return np.asarray(run.scores, np.float64)[:, None]
    if is_success_row(run):
        return 100.0 * np.asarray(run.success, np.float64)
    returns, scale = np.asarray(run.returns, np.float64), run.score_range
    return normalised_score(returns, tuple(scale)) if isinstance(scale, Sequence) else returns


def setting_of(config: Json) -> Json:
    """The configuration by dotted names, without what makes no other setting."""

    def counts(path: str, value: object) -> bool:
        leaf = path.rpartition(".")[2]
        # None is an option that was not given, as one that an older run does not know.
        return path not in NO_SETTING and value is not None and (leaf not in LATER or value != LATER[leaf])

    return {path: value for path, value in flat(config).items() if counts(path, value)}


def labels(cells: pd.DataFrame) -> list[str]:
    """Names that tell the cells of a method on one dataset apart, the same on all datasets."""
    names: dict[Any, str] = {}
    for (_, method), like in cells.groupby(["kind", "method"], sort=False):
        settings = {at: json.loads(text) for at, text in like.setting.items()}
        differ: set[str] = set()
        for _, alike in like.groupby(DATA, sort=False, dropna=False):
            found = pd.DataFrame([{k: json.dumps(v) for k, v in settings[at].items()} for at in alike.index])
            differ |= {str(key) for key in found.columns[found.nunique(dropna=False) > 1]}
        by_preset = "preset" in differ and not like.duplicated([*DATA, "preset"]).any()
        for at, setting in settings.items():
            names[at] = str(method) + _suffix(setting, differ, list(settings.values()), by_preset)
    return [names[at] for at in cells.index]


def _suffix(setting: Json, differ: set[str], like: Sequence[Json], by_preset: bool) -> str:
    if not differ:
        return ""
    if by_preset:
        return f", {setting['preset']}"
    if len(differ) > SHOWN:
        return f", setting {config_hash(setting)}"

    def value(of: Json, key: str) -> Any:
        return of.get(key, LATER.get(key.rpartition(".")[2]))

    texts = []
    for key in sorted(differ):
        leaf = key.rpartition(".")[2]
        same = [other for other in differ if other.rpartition(".")[2] == leaf]
        alike = all(value(of, key) == value(of, other) for of in like for other in same)
        texts.append(f"{leaf if alike else key} {value(setting, key)}")
    return ", " + ", ".join(dict.fromkeys(texts))
