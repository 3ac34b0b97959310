"""All runs as one table: nothing is lost, nothing is there twice, numbers are those of the files."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
from made_runs import RETURNS, finished, make_results, write

from jdp.errors import UserError
from jdp.evaluation import interval
from jdp.runs.curves import POINTS, read_curves, summarise
from jdp.runs.frame import COLUMNS, read_runs
from jdp.runs.logs import training_minutes
from jdp.runs.records import without_place
from jdp.types import Spec

RUN = "20261101-100000-aaaaaaaa"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return make_results(tmp_path_factory.mktemp("results"))


def rows(out: Path, sweep: str | None = None) -> dict[str, pd.Series]:
    return {run.id.rpartition("/")[2]: run for _, run in read_runs(out, sweep).iterrows()}


def test_runs_are_read_and_those_that_cannot_be_say_why(results):
    found = rows(results)
    assert len(found) == 12 and "b" not in found
    assert list(found[RUN].index) == list(COLUMNS)
    for name in ("half", "list", "deep", "empty", "scores"):
        assert found[name].status == "broken"
        file = "scores.json" if name == "scores" else "config.json"
        assert found[name].error.startswith(file), found[name].error
    unfinished = found["20261105-100000-eeeeeeee"]
    assert unfinished.status == "unfinished" and unfinished.progress == "last logged: agent, step 30"
    whole = found[RUN]
    assert whole.status == "finished" and whole.started == "2026-11-01 10:00"
    assert [whole.score, whole.low, whole.high] == list(interval([9.0, 11.0]))
    assert whole.minutes == pytest.approx(20 * 6 / 60)  # 20 chunks of 6 s; evaluations are no training
    arms = [name for name in found if name.startswith("20261103")]
    assert arms == ["20261103-100000-cccccccc~dataset", "20261103-100000-cccccccc~guided"]
    assert [found[arm].method for arm in arms] == ["td3_bc (dataset arm)", "td3_bc (guided arm)"]
    assert [found[arm].score for arm in arms] == [30.5, 2.25]


def test_no_run_is_lost_whatever_its_folders_are_called_nor_is_there_twice(tmp_path):
    config = {"agent": "bc", "preset": "cpu"}
    places = [
        "offline_rl/.-mine.hdf5/a",
        "offline_rl/数据/b",
        "offline_rl/c",
        "d",
        "a/plan/x y/e",
        "plan/tables/f",
    ]
    command = "python experiments/offline_rl.py --env ./mine.hdf5"
    for place in places:
        write(tmp_path / place, config, [], finished([1.0]), command=command)
    (tmp_path / ".git" / "hooks" / "x").mkdir(parents=True)
    (tmp_path / "plan" / ".ipynb_checkpoints" / "y").mkdir(parents=True)
    write(tmp_path / "tables" / "kept" / "z", config, [], finished([1.0]))  # a small result that Git keeps
    (tmp_path / "plan" / "x").symlink_to(tmp_path / "a" / "plan" / "x y")
    found = read_runs(tmp_path)
    assert sorted(found.path.map(lambda p: Path(p).name)) == list("abcdef")
    by_name = found.set_index(found.path.map(lambda p: Path(p).name))
    assert list(by_name.experiment[list("abcdef")]) == ["offline_rl"] * 4 + ["plan"] * 2
    assert set(found.status) == {"finished"}


def test_numbers_are_numbers_and_what_is_none_is_missing(tmp_path):
    write(tmp_path / "plan/x/a", {"planner": "p", "updates": "many", "seeds": 3, "seed": None})
    write(tmp_path / "plan/x/b", {"planner": "p", "updates": 7, "seeds": 1}, [], finished([1.0, 3.0]))
    found = read_runs(tmp_path)
    assert found.updates.isna().tolist() == [True, False] and found.updates.max() == 7
    assert found.seeds.tolist() == [3, 2] and str(found.seeds.dtype) == "Int64"
    assert found.groupby("method").score.mean()["p"] == 2.0
    assert list(read_runs(tmp_path / "none").columns) == list(COLUMNS)


def test_a_sweep_is_its_cells_also_those_without_a_run(results, tmp_path):
    out = tmp_path / "moved"
    shutil.copytree(results, out)
    runs = "offline_rl/hopper-medium"
    cells = [
        {"name": "one", "status": "finished", "run": f"elsewhere/results/{runs}/{RUN}"},
        {"name": "two", "status": "failed", "error": "error: no disk",
         "run": f"results/{runs}/20261105-100000-eeeeeeee"},
        {"name": "three", "status": "waiting", "run": None, "command": ["python", "c.py", "--x", "a b"]},
        {"name": "four", "status": "finished", "run": "results/plan/x/gone", "job": "1_2"},
    ]  # fmt: skip
    (out / "sweeps" / "small").mkdir(parents=True)
    (out / "sweeps" / "small" / "cells.json").write_text(json.dumps({"name": "small", "cells": cells}))
    found = rows(out, "small")
    assert {name: run.status for name, run in found.items()} == {
        RUN: "finished",
        "20261105-100000-eeeeeeee": "failed",
        "cell three": "waiting",
        "cell four": "broken",
    }
    assert found["20261105-100000-eeeeeeee"].error == "error: no disk"
    assert found["cell three"].command == "python c.py --x 'a b'"
    assert "plan/x/gone is gone" in found["cell four"].error
    (out / "sweeps" / "torn").mkdir()
    (out / "sweeps" / "torn" / "cells.json").write_text('{"cells": [{"na')
    everything = rows(out)
    assert len(everything) == 12, "cells add no row where all runs are asked for"
    assert everything["20261105-100000-eeeeeeee"].status == "failed", "known without the sweep's name too"
    assert everything[RUN].sweep == "small" and everything[RUN].cell == "one"
    with pytest.raises(UserError, match=r"torn.*cannot be read"):
        read_runs(out, "torn")
    with pytest.raises(UserError, match=r"no sweep other.*small"):
        read_runs(out, "other")


def test_curves_are_the_logged_means_with_intervals_over_seeds(results):
    run = results / "offline_rl/hopper-medium" / RUN
    every = read_curves(run)
    found = summarise(every)
    score = found[found.metric == "score"]
    for (step, returns), line in zip(RETURNS.items(), score.itertuples(), strict=True):
        seeds = [100 * (np.mean(r) + 20) / 3250 for r in returns]
        assert line.step == step
        np.testing.assert_allclose([line.mean, line.low, line.high], interval(seeds), rtol=1e-12)
        logged = every[(every.metric == "score") & (every.step == step)]
        np.testing.assert_allclose(logged.sort_values("seed").value, seeds, rtol=1e-12)
    loss = found[found.metric == "critic_loss"].iloc[:2]
    assert list(loss.step) == [10, 20]
    assert loss.iloc[0][["low", "mean", "high"]].tolist() == [10.0, 15.0, 20.0]
    broken = read_curves(results / "broken/set/scores")
    assert set(broken.metric) == {"score", "critic_loss"}, "what could be read is still shown"


GOALS, PLAIN = Spec(2, 2, "reach", goal=(0, 1)), Spec(4, 2, "reach")


@pytest.mark.parametrize(
    "facts",
    [
        {"spec": asdict(GOALS)},
        {"spec": asdict(PLAIN), "task_spec": asdict(GOALS)},  # an agent that is told the goal in observations
        {"spec": asdict(replace(PLAIN, env_id="cube-single-play-singletask-v0"))},
    ],
)
def test_curves_show_successes_where_scores_are_shares_of_them(tmp_path, facts):
    (tmp_path / "config.json").write_text(json.dumps(facts))
    record = {"step": 5, "returns": [[-9.0, -3.0], [-7.0, -2.0]], "success": [[0, 1], [1, 1]]}
    found = read_curves(write_log(tmp_path, [{"phase": "agent/evaluation", **record}]))
    assert list(found.value) == [50, 100]


def write_log(folder: Path, records: list[dict]) -> Path:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_long_run_keeps_few_points_and_its_extremes(tmp_path):
    records = [{"phase": "diffuser", "step": s, "loss": float(s == 7_777)} for s in range(10_000)]
    line = summarise(read_curves(write_log(tmp_path, records)))
    assert len(line) == POINTS and line.step.iloc[-1] == 9_999
    assert line.high.max() == 1.0 and line["mean"].mean() == pytest.approx(1e-4)


def test_phases_of_one_seed_each_are_one_curve_of_many(tmp_path):
    records = [{"phase": f"diffuser {i}", "step": 5, "loss": float(i), "seconds": 1.0} for i in range(3)]
    more = [{"phase": "evaluation", "step": 1, "returns": [1.0]}, {"phase": "x", "step": 1, "loss": None}]
    write_log(tmp_path, [*records, *more, {"no": "phase"}])
    found = read_curves(tmp_path)
    assert list(found[found.phase == "diffuser"].seed) == [0, 1, 2]
    line = summarise(found).iloc[0]
    assert line[["phase", "low", "mean", "high"]].tolist() == ["diffuser", 0.0, 1.0, 2.0]
    assert training_minutes(tmp_path) == pytest.approx(3 / 60)


def test_a_command_is_shown_as_it_can_be_given_again(tmp_path):
    recorded = f"python {tmp_path}/experiments/plan.py --resume --seed 3 --out {tmp_path}/r --env 'my set'"
    assert without_place(recorded) == "python experiments/plan.py --seed 3 --env 'my set'"
    assert without_place(f"python experiments/plan.py --resume auto --out={tmp_path}/r --seeds 2") == (
        "python experiments/plan.py --seeds 2"
    )
    assert (
        without_place("python experiments/plan.py --seed 1 --resume") == "python experiments/plan.py --seed 1"
    )
    assert without_place("") == "(not recorded)"
