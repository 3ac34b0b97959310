"""table.py as a user runs it: what it chooses, writes, draws, compares and refuses."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from scripts import EXPERIMENTS, check_mistakes, run
from table_runs import HOPPER, MAZE, line, make_run, rows_of, shown, tables

from jdp.evaluation import difference, interval
from jdp.runs.cells import pool_seeds
from jdp.runs.directories import dataset_folder
from jdp.runs.frame import read_runs
from jdp.runs.table_figures import table_figures
from jdp.runs.texts import Grid, escape, latex, markdown

sys.path.insert(0, str(EXPERIMENTS))
import table


def test_a_sweep_chooses_its_runs_and_says_what_is_missing(tmp_path):
    first = make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0])
    make_run(tmp_path, "offline_rl", HOPPER, "iql", [90.0, 91.0])
    states = [("bc", "finished", str(first), None), ("cql", "failed", None, "no memory")]
    states.append(("awac", "running", None, None))
    cells = [dict(zip(("name", "status", "run", "error"), s, strict=True), command=[]) for s in states]
    folder = tmp_path / "sweeps" / "agents"
    folder.mkdir(parents=True)
    (folder / "cells.json").write_text(json.dumps({"name": "agents", "cells": cells}))
    text, rows = tables(tmp_path, "--sweep", "agents", name="agents")
    assert [row["method"] for row in rows] == ["bc"]
    assert "Not in the table: cql, failed (no memory)." in text and "awac, running." in text
    # The results may be moved as a whole.
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    assert tables(moved, "--sweep", "agents", name="agents")[1][0]["method"] == "bc"


def test_one_dataset_and_the_readme(tmp_path):
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0])
    make_run(tmp_path, "plan", MAZE, "diffuser", [100.0, 90.0])
    (tmp_path / "README.md").write_text("Words before.\n")
    _, rows = tables(tmp_path, "--env", "hopper-medium", "--readme", name="hopper-medium")
    assert [row["method"] for row in rows] == ["bc"]
    once = (tmp_path / "README.md").read_text()
    assert once.startswith("Words before.") and "Preset cpu; 100 updates; 2 seeds a cell." in once
    assert "(tables/hopper-medium/table.csv)" in once and line(once, "bc")[1].startswith("35.0")
    tables(tmp_path, "--env", "hopper-medium", "--readme", name="hopper-medium")
    assert (tmp_path / "README.md").read_text() == once


def test_mistakes_get_one_line(tmp_path):
    smoke, bad, cut = tmp_path / "smoke", tmp_path / "bad", tmp_path / "cut"
    preset = {"preset": "smoke"}
    make_run(smoke, "offline_rl", HOPPER, "bc", [30.0], config=preset, scores=preset)
    (smoke / "sweeps" / "agents").mkdir(parents=True)
    (smoke / "sweeps" / "agents" / "cells.json").write_text('{"cells": [')
    half = make_run(bad, "offline_rl", HOPPER, "bc", [30.0])
    (half / "scores.json").write_text((half / "scores.json").read_text()[:50])
    running = make_run(cut, "offline_rl", HOPPER, "bc", [30.0])
    (running / "scores.json").unlink()  # only begun
    cases = {
        "only smoke": (["--out", str(smoke)], "no finished run of the cpu or paper preset"),
        "half-written": (["--out", str(bad)], "is no whole finished run"),
        "unfinished": (["--out", str(cut)], "offline_rl.py --agent td3_bc"),
        "nothing": (["--out", str(tmp_path / "none"), "--env", "walker2d-medium"], "--env walker2d-medium"),
        "no such sweep": (["--out", str(smoke), "--sweep", "agent"], "there is agents"),
        "no list of cells": (["--out", str(smoke), "--sweep", "agents"], "is no list of cells"),
    }
    check_mistakes("table", cases, [])
    assert not list(tmp_path.rglob("table.md"))


def test_smoke_rows_are_left_out_and_the_figures_drawn(tmp_path):
    for method, middle in (("bc", 30.0), ("iql", 50.0)):
        make_run(tmp_path, "offline_rl", HOPPER, method, [middle, middle + 5, middle + 10])
    preset = {"preset": "smoke"}
    make_run(tmp_path, "offline_rl", HOPPER, "cql", [99.0], config=preset, scores=preset)
    done = run("table", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "refused: 1 run of the smoke preset" in done.stdout and "cql" not in done.stdout
    folder = tmp_path / "tables/all"
    text = (folder / "table.md").read_text()
    linked = set(re.findall(r"\]\((.*?)\.png\)", text))
    names = {"aggregates", "profiles", "improvement", f"evaluations-{dataset_folder(HOPPER)}"}
    assert linked == {f"normalised-score-{name}" for name in names}
    for stem in linked:
        assert (folder / f"{stem}.png").stat().st_size > 5000 and (folder / f"{stem}.pdf").exists()


def test_no_bootstrap_and_no_curve_of_two_seeds(tmp_path):
    for method, middle in (("bc", 30.0), ("iql", 50.0)):
        make_run(tmp_path, "offline_rl", HOPPER, method, [middle, middle + 5])
    cells = pool_seeds(read_runs(tmp_path))
    assert table_figures(cells) == {}


def test_latex_is_balanced_and_escaped():
    nasty = "50 % of a_b & {c} #1 $x$ ~ ^ \\ ± < | [x"
    cells = pd.DataFrame([["**bold_1**", "[1, 2]"], ["x", nasty]], columns=["method", nasty])
    grid = Grid(nasty, cells, [nasty], left=1)
    text = latex(grid)
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert begun == ["table", "tabular"] and ended == begun[::-1]
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)  # without escaped characters
    assert bare.count("{") == bare.count("}")
    assert "%" not in bare and "#" not in bare and "_" not in bare and "±" not in bare
    body = bare[bare.index("toprule") : bare.index("bottomrule")]
    assert body.count("&") == 3  # one a row, none from the text
    assert r"\textbf{bold\_1}" in text and escape("[1") == "{[}1"
    lines = [row for row in markdown(grid).splitlines() if row.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in lines} == {3}


def test_the_difference_of_two_runs_is_that_of_the_library(tmp_path, capsys):
    rng = np.random.default_rng(0)
    first, second = rng.normal(50, 10, 4).tolist(), rng.normal(30, 2, 3).tolist()
    make_run(tmp_path, "offline_rl", HOPPER, "bc", first, name="a")
    b = make_run(tmp_path, "plan", HOPPER, "diffuser", second, name="b")
    make_run(tmp_path, "plan", MAZE, "diffuser", [50.0], name="c")
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--out", str(tmp_path), "--compare", "20260101-a-bc", str(b)]
        patch.setattr(sys, "argv", ["experiments/table.py", *arguments])
        table.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"A 20260101-a-bc: bc, normalised score {shown(interval(first))}")
    found = difference(first, second)
    assert lines[2].startswith(
        f"A - B: {shown(found)}, {found.high - found.low:.1f} wide, does not include 0"
    )
    assert not list(tmp_path.glob("tables")), "a comparison writes nothing"
    cases = {
        "two names": (["--compare", "20260101-a-bc", "20260101-c-diffuser"], "runs on different data"),
        "twice": (["--compare", "20260101-a-bc", "20260101-a-bc"], "name two runs"),
        "near": (["--compare", "20260101-a-bc", "20260101-b-difuser"], "there is 20260101-b-diffuser"),
    }
    check_mistakes("table", cases, ["--out", str(tmp_path)])


def test_score_beside_the_time_of_a_decision(tmp_path):
    slow = {"latency": {"median": 0.25, "percentile_95": 0.5, "percentile_99": 0.75}}
    slow["at_rates"] = [{"hz": 10.0, "ticks": 2, "seeds": [30.0, 50.0], "interval": [40.0, 20.0, 60.0]}]
    make_run(tmp_path, "plan", MAZE, "diffuser", [50.0, 60.0], scores=slow)
    make_run(tmp_path, "policies", MAZE, "beso", [20.0, 30.0], scores={"updates": 900})
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0], scores={"latency": None})
    text, rows = tables(tmp_path, "--latency", "--env", "pointmaze-umaze", name="planning_pointmaze-umaze")
    planner, policy = rows_of(text)[2:]
    assert (
        planner[0] == "diffuser"
        and planner[1] == "planner"
        and planner[5:10] == ["250.0 ms", "500.0 ms", "750.0 ms", "40.0 (2 late)", "100"]
    )
    assert policy[0] == "beso" and policy[5:10] == ["1.0 ms", "2.0 ms", "-", "-", "900"]
    assert [row["median_ms"] for row in rows] == ["250.0", "1.0"]
    assert (
        "the task does not wait" in text and "Clopper-Pearson" in text and "timed in one environment" in text
    )
    assert (tmp_path / "tables/planning_pointmaze-umaze/cost.png").stat().st_size > 5000
