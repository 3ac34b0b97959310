"""Runs as the cells of a table: one method with one setting on one dataset, the seeds of all its runs."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdp.agents import AGENTS, MODEL_BASED
from jdp.evaluation import Interval, interval, normalised_score, success_interval
from jdp.planners import PLANNERS
from jdp.policies import POLICIES
from jdp.runs.directories import config_hash

KINDS = ("agent", "planner", "policy", "arm")
ORDER = [*AGENTS, *PLANNERS, *POLICIES]
# Of a configuration, what makes no other setting: the seeds, names of the same data, pictures.
NO_SETTING = ("seed", "seeds", "env", "source", "evaluation.pictures", "evaluation.decisions")
# Options that older runs do not know, with what those did; wherever they stand in a configuration.
LATER: dict[str, Any] = {"precision": "float32", "accumulate": 1}
SHOWN = 3  # settings in a method's name; where more differ it gets their hash


@dataclass(frozen=True)
class Cell:
    """All seeds of one method with one setting on one dataset."""

    method: str  # its name, with the settings in which cells of it on one dataset differ
    kind: str  # one of KINDS
    setting: Mapping[str, Any]  # the configuration, flat
    runs: tuple[dict[str, Any], ...]  # oldest first, as `read` and `arms` give them

    @property
    def first(self) -> dict[str, Any]:
        return self.runs[0]

    @property
    def data(self) -> tuple[str, str, str]:
        """Name and hash of the dataset, and the task: a name may stand on other data or tasks."""
        return run_data(self.first)

    @property
    def seeds(self) -> np.ndarray:
        """`[S]`, the mean score of each seed."""
        return np.concatenate([np.asarray(run["seeds"], np.float64) for run in self.runs])

    @property
    def episodes(self) -> np.ndarray:
        """`[S, episodes]`, what the means of are the seeds' scores."""
        return np.concatenate([episode_scores(run) for run in self.runs])

    @property
    def won(self) -> np.ndarray:
        """`[S, episodes]`, 1 where an episode succeeded."""
        return np.concatenate([np.asarray(run["success"], np.float64) for run in self.runs])

    @property
    def interval(self) -> Interval:
        """Over all episodes where the score is a share of them, else over the seeds."""
        return success_interval(self.won) if is_success(self.first) else interval(self.seeds)

    @property
    def minutes(self) -> float:
        """Of training, in sum over the runs."""
        return sum(run["training"] for run in self.runs)

    @property
    def hardware(self) -> str:
        return ", ".join(sorted({hardware(run) for run in self.runs}))

    def latency(self, name: str) -> float:
        """Milliseconds a decision; NaN for agents, whose decisions are not timed."""
        return 1e3 * float(
            np.median([run["latency"][name] if run.get("latency") else np.nan for run in self.runs])
        )


def cells_of(runs: Iterable[dict[str, Any]]) -> list[Cell]:
    """`runs` as cells in the order of the registries: those that differ only in seed are one."""
    groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    repeated = 0
    for run in itertools.chain.from_iterable(map(arms, runs)):
        setting = json.dumps(setting_of(run["config"]), sort_keys=True)
        group = groups.setdefault((run["kind"], run["method"], *run_data(run), setting), {})
        seed = run["config"]["seed"]
        repeated += seed in group
        # Two runs of one seed are one experiment: the one with more agents, else the newer one, counts.
        group[seed] = max(group.get(seed, run), run, key=lambda r: (len(r["seeds"]), r["path"].name))
    if repeated:
        print(f"left out: {repeated} run{'s' * (repeated > 1)} that another repeats with the same seed")
    cells = [
        Cell(key[1], key[0], json.loads(key[-1]), tuple(group[seed] for seed in sorted(group)))
        for key, group in groups.items()
    ]
    cells = named(cells)
    return sorted(cells, key=lambda c: (KINDS.index(c.kind), place(c.first["method"]), c.method, c.data))


def place(method: str) -> int:
    """Where a method stands in the registries, by the first word of its name."""
    name = method.partition(" ")[0]
    return ORDER.index(name) if name in ORDER else len(ORDER)


def run_data(run: dict[str, Any]) -> tuple[str, str, str]:
    return run["dataset"], run["sha256"], run.get("task") or ""


def arms(run: dict[str, Any]) -> list[dict[str, Any]]:
    """What was scored in a run: one method, or every arm of `pgd_d4rl.py`."""
    if "arms" in run:
        agent = run["config"]["agent"]
        found = run["arms"].items()
        return [
            run | score | {"kind": "arm", "method": f"{agent} ({arm} arm)", "training": minutes_of(run, arm)}
            for arm, score in found
        ]
    if "agent" in run:
        model = run["config"].get("world_model", "ensemble") if run["agent"] in MODEL_BASED else ""
        name = run["agent"] + (f" ({model.replace('_', ' ')})" if model else "")
        return [run | {"kind": "agent", "method": name}]
    return [run | {"kind": "planner" if run["method"] in PLANNERS else "policy"}]


def minutes_of(run: Mapping[str, Any], arm: str) -> float:
    """Minutes of training of an arm: its own, and those of the models that all arms share."""
    if "minutes" not in run:
        return run["training"]
    return sum(spent for phase, spent in run["minutes"].items() if phase == arm or phase not in run["arms"])


def setting_of(config: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """The configuration by dotted names, without what makes no other setting."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{name}.{key}".strip(".")
        if isinstance(value, Mapping):
            flat |= setting_of(value, path)
        # None is an option that was not given, as one that an older run does not know.
        elif path not in NO_SETTING and value is not None and (key not in LATER or value != LATER[key]):
            flat[path] = value
    return flat


def named(cells: Sequence[Cell]) -> list[Cell]:
    """Adds to a method's name what tells its cells on one dataset apart, the same on all datasets."""
    result = []
    for cell in cells:
        like = [c for c in cells if (c.kind, c.method) == (cell.kind, cell.method)]
        differ = {
            key
            for a in like
            for b in like
            if a.data == b.data
            for key in {*a.setting, *b.setting}
            if a.setting.get(key) != b.setting.get(key)
        }
        result.append(dataclasses.replace(cell, method=cell.method + suffix(cell, differ, like)))
    return result


def suffix(cell: Cell, differ: set[str], like: Sequence[Cell]) -> str:
    if not differ:
        return ""
    if "preset" in differ and len({(c.data, c.setting["preset"]) for c in like}) == len(like):
        return f", {cell.setting['preset']}"
    if len(differ) > SHOWN:
        return f", setting {config_hash(cell.setting)}"

    def value(of: Cell, key: str) -> Any:
        return of.setting.get(key, LATER.get(key.rpartition(".")[2]))

    texts = []
    for key in sorted(differ):
        leaf = key.rpartition(".")[2]
        like_it = [other for other in differ if other.rpartition(".")[2] == leaf]
        alike = all(value(c, key) == value(c, other) for c in like for other in like_it)
        texts.append(f"{leaf if alike else key} {value(cell, key)}")
    return ", " + ", ".join(dict.fromkeys(texts))


def is_success(run: dict[str, Any]) -> bool:
    return run["score_name"] == "success %"


def interval_of(run: dict[str, Any]) -> Interval:
    """Of one run, as a cell's."""
    return success_interval(run["success"]) if is_success(run) else interval(run["seeds"])


def episode_scores(run: dict[str, Any]) -> np.ndarray:
    """`[seeds, episodes]`, what the means of are the run's scores."""
    if is_success(run):
        return 100.0 * np.asarray(run["success"], np.float64)
    scale = run["spec"].get("score_range")
    returns = np.asarray(run["returns"], np.float64)
    return returns if scale is None else normalised_score(returns, tuple(scale))


def hardware(run: dict[str, Any]) -> str:
    """ "2 CPU cores", or "8 x NVIDIA H200"."""
    platform, _, name = run["devices"][0].partition(": ")
    return f"{run['cores']} CPU cores" if platform == "cpu" else f"{len(run['devices'])} x {name}"
