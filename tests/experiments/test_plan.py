"""plan.py as a user runs it: killed and resumed, given wrong input; and the table of its runs."""

import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import EXPERIMENTS, check_mistakes, killer, run

import jdp
from jdp.errors import UserError
from jdp.types import named_keys

pytest.importorskip("gymnasium_robotics")

ALWAYS = ["--planner", "diffuser", "--preset", "smoke", "--source", "bundled", "--env", "pointmaze-umaze"]
TINY = [
    *ALWAYS,
    *("--updates", "104", "--batch-size", "8", "--checkpoint-minutes", "0", "--evaluation.pictures", "1"),
    *("--evaluation.decisions", "2", "--settings.model.network.features", "8"),
]


def script(out: Path, *arguments: str, code: str | None = None):
    return run("plan", *TINY, *arguments, "--out", str(out), code=code)


def scores(out: Path) -> dict:
    (path,) = out.glob("plan/*/*/scores.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    done = script(out)
    assert done.returncode == 0, done.stderr
    assert "last checkpoint" in done.stdout and "decision in one environment" in done.stdout
    return out


def test_a_run_keeps_every_return_and_compiles_each_program_once(whole):
    found = scores(whole)
    assert np.shape(found["returns"]) == np.shape(found["success"]) == (2, 2)
    assert found["seeds"] == [50.0 * sum(s) for s in found["success"]]  # in percent, of two episodes
    assert (np.array(found["lengths"]) <= 300).all()
    (path,) = whole.glob("plan/*/*/config.json")
    settings = json.loads(path.read_text())["config"]["settings"]
    assert {settings[part]["steps"] for part in ("model", "critic", "inverse")} == {
        104
    }  # rates fall over them
    repeated = found["compilations"]["repeated"]
    assert repeated.get("jit(act)") == 2  # for all episodes and for one: the weights are arguments
    # The picture, which shows the chain, takes one program more.
    assert "jit(_follow)" not in repeated and "jit(chunk)" not in repeated
    (figures,) = whole.glob("plan/*/*/figures")
    assert {"plans.png", "closed_loop.gif"} <= {path.name for path in figures.iterdir()}


@pytest.mark.slow
def test_killed_while_it_trains_a_run_ends_with_the_same_numbers(whole, tmp_path):
    # In the second save: what was learned since the first is lost (test_policies_script.py kills later).
    killed = script(tmp_path, code=killer("plan", "jdp.runs.checkpoints", "save", 2, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert "100/104" in done.stdout  # where its training goes on
    for key in ("returns", "success", "lengths", "seeds"):
        assert scores(tmp_path)[key] == scores(whole)[key]


def test_a_loaded_run_plays_as_the_script_did(whole):
    (path,) = whole.glob("plan/*/*")
    loaded = jdp.load_run(path)
    names = ("train", "adapt", "play", "latency", "pictures")  # of closed_loop.open_method
    key = jax.random.fold_in(named_keys(jax.random.key(0), *names)["play"], 1)
    played = jdp.loops.play(
        loaded.method.policy,
        key,
        loaded.state(1),
        jdp.evaluation.environment_maker(loaded.spec),
        episodes=2,
        seed=1_001_000,
    )
    assert loaded.kind == "planner" and loaded.name == "diffuser" and loaded.scores is not None
    assert played.lengths.tolist() == loaded.scores["lengths"][1]
    with pytest.raises(UserError, match="training seeds 0 to 1, not 2"):
        loaded.state(2)


def test_mistakes_get_one_line(whole, tmp_path):
    (finished,) = whole.glob("plan/*/*")
    cases = {
        "planner": (["--planner", "vetern"], "did you mean veteran?"),
        "no such dataset": (["--env", "pointmaze-umase"], "pointmaze-umaze"),
        "goal outside": (["--evaluation.goal", "100", "100"], "outside the maze"),
        "goal in a wall": (["--evaluation.goal", "0", "0"], "lies in a wall"),
        "start in a wall": (["--evaluation.start", "2", "0"], "lies in a wall"),
        "no maze": (["--env", "hopper-medium", "--evaluation.goal", "1", "1"], "no maze"),
        "horizon": (["--settings.horizon", "33", "--settings.stride", "8"], "not divisible"),
        "too long": (["--settings.horizon", "100000"], "horizon"),
        "no blocks": (["--settings.model.network.blocks", "0"], "blocks >= 1"),
        "sampler": (["--settings.sampling.sampler", "heum"], "heun"),
        "formulation": (["--settings.model.formulation", "vp_esp"], "vp_eps"),
        "planner of another run": (["--planner", "veteran", "--resume", str(finished)], "configuration"),
        "other configuration": (["--seed", "3", "--resume", str(finished)], "seed: 0 there, 3 here"),
        "finished": (["--resume", str(finished)], "is finished"),
        "nothing to resume": (["--resume", "--seed", "77"], "start without --resume"),
        "no seeds": (["--seeds", "0"], "--seeds"),
        "no updates": (["--updates", "0"], "--updates"),
        "no decisions": (["--evaluation.decisions", "0"], "--evaluation.decisions"),
        "typo in an option": (["--settings.horzon", "8"], "--settings.horizon"),
        "unknown preset": (["--preset", "fast"], "smoke"),
    }
    check_mistakes("plan", cases, [*TINY, "--out", str(tmp_path / "out")])
    assert not list(tmp_path.rglob("config.json"))


def test_without_gymnasium_robotics(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(EXPERIMENTS)!r})
sys.modules["gymnasium_robotics"] = None
import plan
from command_line import run_main
run_main(plan.main)
"""
    done = script(tmp_path, code=code)
    assert done.returncode == 2 and 'pip install "jdp[robotics]"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


def relabelled(whole: Path, out: Path) -> tuple[dict, dict]:
    """The run twice in `out`, as no smoke run: once as it is, once as a policy that is worse and quicker."""
    (source,) = whole.glob("plan/*/*")
    a = scores(whole) | {"preset": "cpu"}
    success = np.zeros_like(a["success"]).tolist()
    b = a | {"method": "beso", "success": success, "seeds": [0.0, 0.0], "interval": [0.0, 0.0, 0.0]}
    b["latency"] = {k: v / 2 for k, v in a["latency"].items()}
    for run_path, found in (("plan/pointmaze-umaze/a", a), ("policies/pointmaze-umaze/b", b)):
        (out / run_path).mkdir(parents=True)
        (out / run_path / "scores.json").write_text(json.dumps(found))
        shutil.copy(source / "config.json", out / run_path)
    return a, b


@pytest.mark.slow
def test_the_table_of_planners_and_policies(whole, tmp_path):
    refused = run("table", "--latency", "--env", "pointmaze-umaze", "--out", str(whole))
    assert refused.returncode == 2 and "refused: 1 run of the smoke preset" in refused.stdout
    assert "no finished run of the cpu or paper preset" in refused.stderr
    a, b = relabelled(whole, tmp_path)
    done = run("table", "--latency", "--env", "pointmaze-umaze", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    target = tmp_path / "tables/planning_pointmaze-umaze"
    assert (target / "cost.png").exists()
    text = (target / "table.md").read_text()
    cells = [[cell.strip() for cell in row.split("|")] for row in text.splitlines() if row.startswith("|")]
    assert [row[1:3] for row in cells[2:]] == [["diffuser", "planner"], ["beso", "policy"]]
    mean, low, high = a["interval"]
    expected = f"{mean:.1f} [{low:.1f}, {high:.1f}]" if high > low else f"{mean:.1f} ["
    assert expected in text and "--planner diffuser" in text and "--out" not in text
    for found in (a, b):
        assert f" {1e3 * found['latency']['median']:.1f} ms |" in text


def test_comparisons_and_mistakes_of_the_table(whole, tmp_path):
    relabelled(whole, tmp_path)
    other = tmp_path / "plan/pointmaze-umaze/other"
    shutil.copytree(other.parent / "a", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"sha256": "0" * 64}))
    (smoke,) = whole.glob("plan/*/*")
    cases = {
        "no runs": (["--env", "hopper-medium", "--latency"], "there is pointmaze-umaze"),
        "mixed data": (["--latency"], "runs on different data"),
        "no such run": (["--compare", "a", "bb"], "there is b"),
        "twice": (["--compare", "a", "a"], "name two runs"),
        "a smoke run": (["--compare", "a", str(smoke)], "smoke preset"),
        "other data": (["--compare", "a", "other"], "runs on different data"),
        "one run as an option": (["--compare", "a"], "--compare"),
    }
    check_mistakes("table", cases, ["--env", "pointmaze-umaze", "--out", str(tmp_path)])


def test_a_comparison_says_whether_the_difference_includes_0(whole, tmp_path):
    relabelled(whole, tmp_path)
    done = run("table", "--env", "pointmaze-umaze", "--out", str(tmp_path), "--compare", "a", "b")
    assert done.returncode == 0, done.stderr
    welch, barnard, bootstrap = done.stdout.splitlines()[2:]
    assert "Barnard's exact test over all episodes" in barnard and "p = " in barnard
    assert "Welch's t over 2 and 2 seeds" in welch and "includes 0" in welch
    assert "wide" in welch and "bootstrap over 2 episodes" in bootstrap
