"""table.py on fabricated runs: what is pooled, what is kept apart, what is said."""

import json

import numpy as np
from table_runs import HOPPER, MAZE, line, make_run, rows_of, shown, tables

from jdp.evaluation import bootstrap_interval, interval, success_interval
from jdp.evaluation.statistics import difference_from
from jdp.runs.cells import pool_seeds
from jdp.runs.frame import read_runs
from jdp.runs.table_figures import while_acting


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
    known: dict = {"precision": "float32", "accumulate": 1, "groups": []}
    known["settings"] = base | {"precision": "float32"}
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
    head = ["method", HOPPER, d4rl, "published", "difference (95 %)", "IQM of 2 datasets"]
    assert line(text, "method") == head
    less = difference_from([50.0, 60.0], 60.37, 3.49 / 3**0.5, 4)
    assert line(text, "td3_bc")[3:5] == ["60.4 ± 3.5", shown(less)]
    assert line(text, "morel (ensemble)")[3:5] == ["-", "-"]
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


def test_what_goes_on_from_a_policy_shows_its_score_before_and_its_steps(tmp_path):
    told = {"steps": 4_000, "base": {"seeds": [40.0, 50.0]}}
    spec = {"observation_dim": 4, "action_dim": 2, "goal": [0, 1]}
    run = make_run(tmp_path, "plan", MAZE, "dppo", [90.0, 70.0], scores=told, spec=spec)
    records = [
        {"phase": "base/evaluation", "step": 0, "returns": [[0.5], [0.5]], "success": [[1, 0], [0, 0]]},
        {"phase": "online/evaluation", "step": 50, "returns": [[0.5], [0.5]], "success": [[1, 1], [1, 0]]},
        {"phase": "online/evaluation", "step": 100, "returns": [[0.5], [0.5]], "success": [[1, 1], [1, 1]]},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text, (row,) = tables(tmp_path)
    assert (float(row["before"]), int(float(row["steps"]))) == (45.0, 4_000)
    assert "| dppo     | " in text and "|     45.0 |" in text and "4,000" in text
    curves = while_acting(pool_seeds(read_runs(tmp_path)))
    steps, scores = curves["dppo"]
    assert steps.tolist() == [2_000, 4_000] and scores.tolist() == [[100, 50], [100, 100]]
