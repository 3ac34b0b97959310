"""What report.py reads and writes: broken runs are rows that say why, and text of runs stays text."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from made_runs import HOSTILE, RETURNS, make_results
from scripts import check_mistakes

from jdp.errors import UserError
from jdp.evaluation import interval

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import report
import report_curves


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return make_results(tmp_path_factory.mktemp("results"))


def rows(out: Path, sweep: str | None = None) -> dict[str, dict]:
    return {run["id"].rpartition("/")[2]: run for run in report.collect(out, sweep)}


def test_runs_are_read_and_those_that_cannot_be_say_why(results):
    found = rows(results)
    assert len(found) == 11 and "b" not in found
    for name in ("half", "list", "deep", "empty", "scores"):
        assert found[name]["status"] == "broken"
        file = "scores.json" if name == "scores" else "config.json"
        assert found[name]["error"].startswith(file), found[name]["error"]
    assert found["scores"]["curves"], "what could be read is still shown"
    unfinished = found["20261105-100000-eeeeeeee"]
    assert unfinished["status"] == "unfinished" and unfinished["progress"] == "last logged: agent, step 30"
    whole = found["20261101-100000-aaaaaaaa"]
    assert whole["status"] == "finished" and whole["started"] == "2026-11-01 10:00"
    assert whole["results"][0]["score"] == [10.0, *interval([9.0, 11.0])[1:]]
    # 20 chunks of 6 s; evaluations are no training.
    assert whole["results"][0]["minutes"] == pytest.approx(20 * 6 / 60)
    assert [r["method"] for r in found["20261103-100000-cccccccc"]["results"]] == [
        "td3_bc, dataset",
        "td3_bc, guided",
    ]


def test_curves_are_the_logged_means_with_intervals_over_seeds(results):
    lines = {line["metric"]: line for line in rows(results)["20261101-100000-aaaaaaaa"]["curves"]}
    score = lines["score"]
    for i, returns in enumerate(RETURNS.values()):
        seeds = [100 * (np.mean(r) + 20) / 3250 for r in returns]
        wanted = interval(seeds)
        np.testing.assert_allclose([score[k][i] for k in ("mean", "low", "high")], wanted, rtol=1e-4)
        np.testing.assert_allclose([line[i] for line in score["seeds"]], seeds, rtol=1e-4)
    loss = lines["critic_loss"]
    assert loss["x"][:2] == [10, 20] and (loss["low"][0], loss["mean"][0], loss["high"][0]) == (
        10.0,
        15.0,
        20.0,
    )


def test_a_long_run_keeps_few_points_and_its_extremes():
    records = [{"phase": "diffuser", "step": s, "loss": float(s == 7_777)} for s in range(10_000)]
    (line,) = report_curves.curves(records, {})
    assert len(line["x"]) == report_curves.POINTS and line["x"][-1] == 9_999
    assert max(line["high"]) == 1.0 and np.mean(line["mean"]) == pytest.approx(1e-4)


def test_phases_of_one_seed_each_are_one_curve_of_many():
    records = [{"phase": f"diffuser {i}", "step": 5, "loss": float(i), "seconds": 1.0} for i in range(3)]
    (line,) = report_curves.curves([*records, {"phase": "evaluation", "step": 1, "returns": [1.0]}], {})
    assert (line["phase"], line["low"], line["mean"], line["high"]) == ("diffuser", [0.0], [1.0], [2.0])
    assert report_curves.minutes(records, set()) == pytest.approx(3 / 60)


def test_a_sweep_shows_its_cells_alone_also_those_without_a_run(results, tmp_path):
    out = tmp_path / "moved"
    shutil.copytree(results, out)
    runs = "offline_rl/hopper-medium"
    cells = [
        {"name": "one", "status": "finished", "run": f"elsewhere/results/{runs}/20261101-100000-aaaaaaaa"},
        {
            "name": "two",
            "status": "failed",
            "error": "error: no disk",
            "run": f"results/{runs}/20261105-100000-eeeeeeee",
        },
        {"name": "three", "status": "waiting", "run": None, "command": ["python", "c.py", "--x", "a b"]},
    ]
    (out / "sweeps" / "small").mkdir(parents=True)
    (out / "sweeps" / "small" / "cells.json").write_text(json.dumps({"name": "small", "cells": cells}))
    found = rows(out, "small")
    assert {name: run["status"] for name, run in found.items()} == {
        "20261101-100000-aaaaaaaa": "finished",
        "20261105-100000-eeeeeeee": "failed",
        "cell three": "waiting",
    }
    assert found["20261105-100000-eeeeeeee"]["error"] == "error: no disk"
    assert found["cell three"]["command"] == "python c.py --x 'a b'"
    (out / "sweeps" / "torn").mkdir()
    (out / "sweeps" / "torn" / "cells.json").write_text('{"cells": [{"na')
    assert rows(out)["20261105-100000-eeeeeeee"]["status"] == "failed", "known without --sweep too"
    with pytest.raises(UserError, match=r"torn.*cannot be read"):
        report.collect(out, "torn")
    with pytest.raises(UserError, match=r"no sweep other.*small"):
        report.collect(out, "other")
    with pytest.raises(UserError, match="holds no runs"):
        report.collect(out / "tables", None)


def test_what_is_too_large_is_named_and_left_out(results):
    for limits, why in (
        ({"file_megabytes": 0.002}, "larger than 0.002 MB"),
        ({"total_megabytes": 0.003}, "the page holds 0.003 MB of figures already"),
    ):
        runs = report.collect(results, None)
        files = report.embed(runs, report.Config(out=results, **limits))
        large, small = rows_of(runs, "20261101-100000-aaaaaaaa")["files"]
        assert (large["name"], large["id"], large["why"]) == ("large.png", None, why)
        assert files[small["id"]].startswith("data:image/png;base64,iVBORw0KGgo")


def rows_of(runs: list[dict], name: str) -> dict:
    return next(run for run in runs if run["id"].endswith(name))


def test_no_text_of_a_run_can_end_the_script_it_stands_in(results):
    value = {"a": HOSTILE, "b": "<!-- <script>", "c": float("nan"), "d": "\ud800"}
    text = report.as_json(value)
    assert "<" not in text and json.loads(text) == value | {"c": None}
    runs = report.collect(results, None)
    page = report.page(runs, {}, report.Config(out=results))
    assert "alert(" not in re.sub(r'<script id="data".*?</script>', "", page, flags=re.S)
    assert page.count("<script") == page.count("</script>") == 1 + len(list(report.PAGE.glob("*.js")))
    assert not re.search(r'(src|href)="(?!#|data:)', page), "nothing is loaded from elsewhere"


def test_a_mistake_gets_one_line(tmp_path, results):
    check_mistakes(
        "report",
        {
            "no runs": (["--out", str(tmp_path)], "holds no runs"),
            "no sweep": (["--out", str(results), "--sweep", "large"], "no sweep large"),
            "unwritable": (["--out", str(results), "--to", "/proc/page.html"], "choose another --to"),
        },
        [],
    )
