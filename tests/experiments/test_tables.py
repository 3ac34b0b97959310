"""table.py on fabricated runs: what is pooled, what is kept apart, what is refused, what is said."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scripts import EXPERIMENTS, check_mistakes, run

from jdp.evaluation import bootstrap_interval, difference, interval, success_interval
from jdp.runs.cells import pool_seeds
from jdp.runs.directories import dataset_folder
from jdp.runs.frame import read_runs
from jdp.runs.texts import Grid, escape, latex, markdown

sys.path.insert(0, str(EXPERIMENTS))
import table

from jdp.runs.table_figures import table_figures

HOPPER, MAZE = "hopper-medium (bundled, d4rl-style)", "pointmaze-umaze (bundled, d4rl-style)"
SCALE = (0.0, 1000.0)  # so that a return of 10 is a score of 1


def make_run(out: Path, experiment: str, dataset: str, method: str, seeds, *, name: str = "a", **changes):
    """A finished run whose seeds have the means `seeds` (normalised, or in percent of ten episodes)."""
    seed, maze = changes.pop("seed", 0), dataset == MAZE
    config = {"env": dataset.partition(" ")[0], "preset": "cpu", "source": "bundled", "seed": seed}
    config |= {"seeds": len(seeds), "updates": 100, "settings": {"alpha": 2.5, "tau": 0.005}}
    config |= {"evaluation": {"episodes": 10}} | changes.pop("config", {})
    word = {"offline_rl": "agent", "plan": "method", "policies": "method"}[experiment]
    success = [[int(i < s / 10) for i in range(10)] for s in seeds]
    found = {
        **{"dataset": dataset, "task": "Hopper-v5", word: method, "preset": config["preset"], "updates": 100},
        **{"episodes": 10, "score_name": "success %" if maze else "normalised score", "seeds": seeds},
        **{
            "returns": [[10.0 * s] * 10 for s in seeds],
            "success": success,
            "behaviour": None if maze else 48.2,
        },
        **{"minutes": {"agent": 1.5}, "latency": {"median": 0.001, "percentile_95": 0.002}},
    } | changes.pop("scores", {})
    facts = {
        **{"config": config, "sha256": "ab" * 32, "commit": "c0ffee", "devices": ["cpu: cpu"], "cores": 2},
        **{"spec": {"score_range": None if maze else SCALE}},
        "command": f"python experiments/{experiment}.py --x {method} --seed {seed} --out {out}",
    } | changes
    folder = out / experiment / config["env"] / f"20260101-{name}-{method}"
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(found))
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def tables(out: Path, *arguments: str, name: str = "all") -> tuple[str, list[dict[str, str]]]:
    """`table.md` and the rows of `table.csv`; in this process, without its figures."""
    before = sys.argv
    sys.argv = ["experiments/table.py", "--out", str(out), *arguments]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table, "draw", lambda section, target: [])
            table.main()
    finally:
        sys.argv = before
    folder = out / "tables" / name
    return (folder / "table.md").read_text(), list(csv.DictReader((folder / "table.csv").open(newline="")))


def line(text: str, start: str) -> list[str]:
    (found,) = [row for row in rows_of(text.split("## Cells")[0]) if row[0] == start]
    return found


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of the tables in `text`, heads and all."""
    rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in text.splitlines() if row.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def shown(found) -> str:
    return f"{found.estimate:.1f} [{found.low:.1f}, {found.high:.1f}]"


def test_runs_that_differ_only_in_seed_are_one_cell(tmp_path):
    make_run(tmp_path, "offline_rl", HOPPER, "td3_bc", [30.0, 40.0])
    make_run(tmp_path, "offline_rl", HOPPER, "td3_bc", [50.0], name="b", seed=7, config={"source": "auto"})
    text, (row,) = tables(tmp_path)
    assert line(text, "td3_bc")[1] == shown(interval([30.0, 40.0, 50.0]))
    assert row["seed_scores"] == "30.00 40.00 50.00" and row["minutes"] == "3.0"
    assert text.count("--x td3_bc --seed 0\n") == text.count("--x td3_bc --seed 7\n") == 1
    assert "--out" not in text.split("Made by")[0]


def test_a_repeated_run_counts_once(tmp_path, capsys):
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0], name="a")
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [31.0, 41.0], name="b")
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [31.0], name="c")  # newer, but of fewer agents
    _, (row,) = tables(tmp_path)
    assert row["seed_scores"] == "31.00 41.00"
    assert "left out: 2 runs" in capsys.readouterr().out


def test_other_settings_and_presets_are_other_rows(tmp_path):
    for name, alpha in (("a", 1.0), ("b", 2.5)):
        config = {"settings": {"alpha": alpha, "tau": 0.005}}
        make_run(tmp_path, "offline_rl", HOPPER, "td3_bc", [10.0 * alpha], name=name, config=config)
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0])
    paper = {"preset": "paper"}
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [40.0], name="b", config=paper, scores=paper)
    text, rows = tables(tmp_path)
    assert [r["method"] for r in rows] == ["bc, cpu", "bc, paper", "td3_bc, alpha 1.0", "td3_bc, alpha 2.5"]
    assert line(text, "td3_bc, alpha 2.5")[1] == "25.0"  # one seed: no interval


def test_options_that_older_runs_do_not_know_have_their_defaults(tmp_path):
    base = {"alpha": 2.5, "tau": 0.005}
    make_run(tmp_path, "plan", MAZE, "diffuser", [50.0])
    known = {"precision": "float32", "accumulate": 1, "settings": base | {"precision": "float32"}}
    make_run(tmp_path, "plan", MAZE, "diffuser", [60.0], name="b", seed=1, config=known)
    (row,) = tables(tmp_path)[1]
    assert row["seeds"] == "2"
    other = known | {"precision": "bf16", "settings": base | {"precision": "bf16"}}
    make_run(tmp_path, "plan", MAZE, "diffuser", [60.0], name="c", config=other)
    names = [row["method"] for row in tables(tmp_path)[1]]
    assert names == ["diffuser, precision bf16", "diffuser, precision float32"]


def test_no_cell_is_lost_to_another_of_a_like_name(tmp_path):
    for name, values in (("a", (1, 1, 2)), ("b", (1, 2, 2)), ("c", (2, 1, 1))):
        settings = {group: {"lr": value} for group, value in zip("xyz", values, strict=True)}
        make_run(tmp_path, "offline_rl", HOPPER, "bc", [float(ord(name))], name=name, config=settings)
    make_run(tmp_path, "offline_rl", HOPPER, "iql", [1.0])  # an option that this run does not know ...
    make_run(
        tmp_path, "offline_rl", HOPPER, "iql", [2.0], name="b", seed=1, config={"new": None}
    )  # nor gives
    text, rows = tables(tmp_path)
    assert sorted(row["score"] for row in rows)[-3:] == ["97.0", "98.0", "99.0"]
    matrix = text.split("## Cells")[0]
    cells = [cell for row in rows_of(matrix) for cell in row]
    assert all(f"{score}.0" in cells for score in (97, 98, 99)) and cells.count("iql") == 1
    assert [row["seeds"] for row in rows if row["method"] == "iql"] == ["2"]


def test_other_tasks_are_other_columns_and_presets_have_no_common_iqm(tmp_path):
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0])
    make_run(tmp_path, "offline_rl", HOPPER, "iql", [50.0, 60.0], scores={"task": "Hopper-v4"})
    walker = HOPPER.replace("hopper", "walker2d")
    long = {"preset": "paper", "updates": 1000}
    make_run(tmp_path, "offline_rl", walker, "bc", [50.0, 60.0], config=long, scores=long, sha256="cd" * 32)
    text, _ = tables(tmp_path)
    head = line(text, "method")
    assert f"{HOPPER}, played in Hopper-v4" in head and f"{HOPPER}, played in Hopper-v5" in head
    assert line(text, "bc")[-1] == "-"
    assert "A row may differ in updates" in text


def test_datasets_are_columns_and_their_iqm_the_last(tmp_path):
    walker = HOPPER.replace("hopper", "walker2d")
    seeds = {"iql": ([10.0, 20.0, 30.0], [50.0, 60.0, 70.0, 80.0]), "bc": ([5.0, 6.0, 7.0], None)}
    for method, (first, second) in seeds.items():
        make_run(tmp_path, "offline_rl", HOPPER, method, first)
        if second:
            make_run(tmp_path, "offline_rl", walker, method, second, sha256="cd" * 32)
    text, _ = tables(tmp_path)
    expected = bootstrap_interval({"h": seeds["iql"][0], "w": seeds["iql"][1]})
    assert line(text, "method") == ["method", HOPPER, walker, "IQM of 2 datasets"]
    assert line(text, "iql")[1:] == [*(shown(interval(s)) for s in seeds["iql"]), shown(expected)]
    assert line(text, "bc")[2:] == ["-", "-"]
    assert f"{HOPPER}: the dataset's own episodes score 48.2." in text


def test_success_has_its_own_table_interval_and_test(tmp_path):
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0])
    make_run(tmp_path, "plan", MAZE, "diffuser", [100.0, 90.0])
    make_run(tmp_path, "policies", MAZE, "fql", [80.0, 100.0])
    make_run(tmp_path, "policies", MAZE, "dql", [0.0, 10.0])
    text, rows = tables(tmp_path)
    assert text.index("## normalised score") < text.index("## success %")
    exact = shown(success_interval([1] * 19 + [0]))
    assert line(text, "diffuser")[1] == f"**{exact}**"
    assert line(text, "fql")[1].startswith("**90.0") and line(text, "dql")[1].startswith("5.0 [")
    assert not line(text, "bc")[1].startswith("**")  # two seeds: no test, no bold
    assert "Clopper-Pearson" in text and "Barnard" in text and "Student's t" in text
    assert {r["method"]: r["interval"] for r in rows}["diffuser"] == "Clopper-Pearson"


def test_bold_is_what_welchs_test_does_not_tell_from_the_best(tmp_path):
    spread = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    for method, middle in (("td3_bc", 50.0), ("iql", 49.0), ("bc", 30.0)):
        make_run(tmp_path, "offline_rl", HOPPER, method, (middle + spread).tolist())
    text, _ = tables(tmp_path)
    assert [line(text, m)[1].startswith("**") for m in ("td3_bc", "iql", "bc")] == [True, True, False]
    assert "Welch" in text
    tex = (tmp_path / "tables/all/table.tex").read_text()
    assert r"\textbf{49.0 {[}" in tex and r"td3\_bc" in tex and "**" not in tex


def test_the_same_name_on_other_data_is_another_column(tmp_path):
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0])
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [70.0, 80.0], name="b", sha256="cd" * 32)
    text, rows = tables(tmp_path)
    assert line(text, "bc")[1:3] == [shown(interval([30.0, 40.0])), shown(interval([70.0, 80.0]))]
    assert f"{HOPPER}, SHA-256 abababab" in text and f"{HOPPER}, SHA-256 cdcdcdcd" in text
    assert [r["sha256"][:2] for r in rows] == ["ab", "cd"]


def test_published_numbers_stand_beside_d4rls_data_alone(tmp_path):
    d4rl = "hopper-medium-v2 (D4RL)"
    make_run(tmp_path, "offline_rl", d4rl, "td3_bc", [50.0, 60.0])
    model = {"settings": {"rollouts": {"length": 5}}, "world_model": "ensemble"}
    make_run(tmp_path, "offline_rl", d4rl, "morel", [50.0, 60.0], name="b", config=model)
    make_run(tmp_path, "offline_rl", HOPPER, "td3_bc", [30.0, 40.0])
    text, rows = tables(tmp_path)
    assert line(text, "method") == ["method", HOPPER, d4rl, "published", "IQM of 2 datasets"]
    assert line(text, "td3_bc")[3] == "60.4 ± 3.5" and line(text, "morel (ensemble)")[3] == "-"
    assert "copied, not run here" in text and "arXiv 2210.07105" in text and "2208.06193" not in text
    (copied,) = [row for row in rows if row["kind"] == "published"]
    assert copied["method"] == "TD3+BC" and "not run here" in copied["source"] and not copied["command"]


def test_the_arms_of_policy_guided_diffusion(tmp_path):
    folder = make_run(
        tmp_path,
        "offline_rl",
        HOPPER,
        "td3_bc",
        [30.0],
        config={"agent": "td3_bc", "arms": ["dataset", "guided"]},
    )
    arm = {"returns": [[300.0] * 10] * 2, "seeds": [30.0, 32.0], "interval": [31.0, 0.0, 62.0]}
    found = {"dataset": HOPPER, "task": "Hopper-v5", "behaviour": 48.2, "seconds_of_last_process": 600.0}
    found["arms"] = {"dataset": arm, "guided": arm}
    (folder / "scores.json").write_text(json.dumps(found))
    folder.parent.parent.rename(tmp_path / "pgd_d4rl")
    text, rows = tables(tmp_path)
    assert [row["method"] for row in rows] == ["td3_bc (dataset arm)", "td3_bc (guided arm)"]
    assert {(row["minutes"], row["updates"], row["preset"]) for row in rows} == {("10.0", "100", "cpu")}
    assert "share a diffuser" in text
    # Runs that log their time by phase: the arm's own and that of the shared models.
    (scores,) = tmp_path.glob("pgd_d4rl/*/*/scores.json")
    scores.write_text(json.dumps(found | {"minutes": {"diffuser": 4.0, "dataset": 1.0, "guided": 2.0}}))
    assert [row["minutes"] for row in tables(tmp_path)[1]] == ["5.0", "6.0"]


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
    slow = {"latency": {"median": 0.25, "percentile_95": 0.5}}
    make_run(tmp_path, "plan", MAZE, "diffuser", [50.0, 60.0], scores=slow)
    make_run(tmp_path, "policies", MAZE, "beso", [20.0, 30.0], scores={"updates": 900})
    make_run(tmp_path, "offline_rl", HOPPER, "bc", [30.0, 40.0], scores={"latency": None})
    text, rows = tables(tmp_path, "--latency", "--env", "pointmaze-umaze", name="planning_pointmaze-umaze")
    planner, policy = rows_of(text)[2:]
    assert (
        planner[0] == "diffuser"
        and planner[1] == "planner"
        and planner[5:8] == ["250.0 ms", "500.0 ms", "100"]
    )
    assert policy[0] == "beso" and policy[5:8] == ["1.0 ms", "2.0 ms", "900"]
    assert [row["median_ms"] for row in rows] == ["250.0", "1.0"]
    assert "Clopper-Pearson" in text and "timed in one environment" in text
    assert (tmp_path / "tables/planning_pointmaze-umaze/cost.png").stat().st_size > 5000
