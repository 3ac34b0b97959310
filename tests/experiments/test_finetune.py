"""finetune.py as a user runs it: killed and resumed, and given wrong input."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
from scripts import EXPERIMENTS, check_mistakes, check_plays_as_scored, killer, run

import jdp

sys.path.insert(0, str(EXPERIMENTS))
import finetune

BASE = [
    *("--preset", "smoke", "--source", "bundled", "--policy", "diffusion_policy", "--updates", "20"),
    *("--batch-size", "16", "--settings.features", "8", "--evaluation.decisions", "2"),
]
DREAMS = [
    *("--method", "diwa", "--ensemble.hidden", "8", "--ensemble.epochs", "1", "--ensemble.members", "2"),
    *("--ensemble.batch-size", "1024"),
]


def trained(out: Path, env: str, *more: str) -> Path:
    """A policy of the smallest size."""
    done = run("policies", *BASE, "--env", env, *more, "--out", str(out))
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("policies/*/*")
    return path


MAZE = "pointmaze-umaze"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("base"), MAZE)


@pytest.fixture(scope="module")
def hopper(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("hopper"), "hopper-medium")


def only(out: Path) -> dict:
    (path,) = out.glob("finetune/*/*/scores.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("words", "clip"),
    [
        ("", 0.1),
        ("--policy pointmaze-umaze-policy", 0.1),
        ("--policy hopper-medium-policy", 0.01),
        ("--policy hopper-medium-policy --env PointMaze_UMaze-v3", 0.1),
        ("--policy hopper-medium-policy --settings.clip 0.3", 0.3),
    ],
)
def test_the_preset_is_that_of_the_policys_task(monkeypatch, words, clip):
    monkeypatch.setattr(sys, "argv", ["finetune.py", "--preset", "cpu", *words.split()])
    assert finetune.command()[1].settings.clip == clip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "policy", "inside"),
    [
        ("dppo", "base", "jax"),
        ("dppo", "base", "host"),
        ("dsrl", "base", "jax"),
        ("expo", "base", "host"),
        ("diwa", "hopper", "dreams"),
    ],
)
def test_a_killed_run_ends_with_the_same_numbers(tmp_path, request, method, policy, inside):
    """Of each loop: on and off policy, in JAX and on the host, and in dreams."""
    own = DREAMS if inside == "dreams" else ["--method", method, "--simulator", inside]
    own = [*own, "--policy", str(request.getfixturevalue(policy))]

    def script(out, *more, code=None):
        argv = ("--preset", "smoke", "--updates", "3", "--evaluation.every", "1", *own)
        return run("finetune", *argv, *more, "--out", str(out), code=code)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = script(whole)
    assert done.returncode == 0, done.stderr
    found = only(whole)
    steps = found["dreamt_steps"] if inside == "dreams" else found["steps"]
    # Of methods with a buffer with the first ones.
    assert steps == (8 + 3 * 4 if method in ("dsrl", "expo") else 3 * 4 * 4) * 8
    if inside == "dreams":
        assert found["steps"] == 0 and "0 environment steps" in done.stdout
    else:
        assert found["score_name"] == "success %"
    assert len(found["base"]["returns"]) == 2
    # The first evaluation is the base policy's; the kill comes in the second one of what was learned.
    target = ("jdp.loops", "score_together") if inside == "jax" else ("jdp.loops.evaluation", "play")
    killed = script(cut, code=killer("finetune", *target, 3, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert {k: only(cut)[k] for k in ("returns", "base")} == {k: found[k] for k in ("returns", "base")}
    plays_again(cut, method, inside)


def plays_again(out: Path, method: str, inside: str) -> None:
    """A fine-tuned run is a policy like any other: loaded, evaluated, filmed; also one of an older jdp."""
    (path,) = out.glob("finetune/*/*")
    loaded = check_plays_as_scored(path, "host" if inside == "dreams" else inside)
    assert (loaded.kind, loaded.name, list(loaded.states)) == ("fine_tuner", method, ["fine_tuner"])
    common = ("--episodes", "2", "--decisions", "1", "--pictures", "1", "--out", str(out))
    done = run("evaluate", str(path), *common)
    assert done.returncode == 0, done.stderr
    (played,) = out.glob("evaluate/*/*")
    if inside != "dreams":
        assert json.loads((played / "scores.json").read_text())["score_name"] == "success %"
        assert {p.name for p in (played / "figures").iterdir()} == {"plans.png", "closed_loop.gif"}
    written = json.loads((path / "config.json").read_text())
    del written["base"]["settings"]  # then the settings are those of the policy's own run
    (path / "config.json").write_text(json.dumps(written))
    assert jdp.load_run(path).method == loaded.method
    written["config"]["policy"] += "-moved"
    (path / "config.json").write_text(json.dumps(written))
    with pytest.raises(jdp.UserError, match="improves a policy that is not there any more"):
        jdp.load_run(path)


@pytest.mark.slow
def test_mistakes_get_one_line(tmp_path, base, hopper):
    policy, dreams = ["--policy", str(base)], ["--method", "diwa", "--policy", str(hopper)]
    changed = tmp_path / "changed"
    shutil.copytree(hopper, changed)
    written = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(written | {"sha256": "another"}))
    cases = {
        "no policy to dream of": (["--method", "diwa"], "--policy STR What is improved: a run directory"),
        "unknown policy": (["--policy", "hoper"], "hoper"),
        "a diffuser": (["--policy", "hopper-medium-diffuser"], "only diffusion_policy"),
        "a planner": (["--policy", "maze2d-umaze-diffuser"], "only diffusion_policy"),
        "method": ([*policy, "--method", "dpo"], "no fine_tuner 'dpo'"),
        "another task": ([*policy, "--env", "Pendulum-v1"], "give the task it was trained for"),
        "no JAX version": ([*policy, "--env", "Ant-v5", "--simulator", "jax"], "Ant-v5 has no JAX version"),
        "rows without goals": (
            [*policy, "--method", "expo", "--settings.acting.offline-share", "0.5"],
            "rows of a dataset do not say which they had",
        ),
        "seed of the policy": ([*policy, "--policy-seed", "9"], "training seeds 0 to 1, not 9"),
        "no flow": ([*policy, "--method", "reinflow"], "no flow but of formulation edm: train one with"),
        "dreams of goals": ([*policy, "--method", "diwa"], "has goals"),
        "no horizon": ([*dreams, "--settings.dream.horizon", "0"], "horizon is 0"),
        "short horizon": ([*dreams, "--settings.dream.horizon", "7"], "give --settings.dream.horizon 8"),
        "no members": ([*dreams, "--world-model", "diffusion_step"], "give --settings.dream.penalty 0"),
        "no dataset": ([*dreams, "--dataset", str(tmp_path / "no.hdf5")], "no.hdf5"),
        "other data": (
            [*dreams, "--dataset", "walker2d-medium"],
            "Hopper-v5 has 11, 3 and 0: give one of this task",
        ),
        "changed data": (["--method", "diwa", "--policy", str(changed)], "another file than"),
        "batches": ([*dreams, "--ensemble.batch-size", "999999999"], "too few to train an ensemble"),
        "no model": ([*policy, "--world-model", "ensemble"], "world-model"),
        "not over bins": (["--method", "world4rl", "--policy", str(hopper)], "improves a policy over bins"),
        "learned steps": ([*policy, "--settings.chain.learned", "99"], "learned"),
    }
    check_mistakes("finetune", cases, ["--preset", "smoke", "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").rglob("config.json"))
