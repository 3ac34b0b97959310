"""finetune.py as a user runs it: killed and resumed, and given wrong input."""

import json
import signal
from pathlib import Path

import pytest
from scripts import check_mistakes, check_plays_as_scored, killer, run

import jdp

BASE = [
    *("--preset", "smoke", "--source", "bundled", "--env", "pointmaze-umaze", "--policy", "diffusion_policy"),
    *("--updates", "20", "--batch-size", "16", "--settings.features", "8", "--evaluation.decisions", "2"),
]


FLOW = ["--settings.formulation", "flow", "--settings.sampler", "euler"]


def trained(out: Path, *more: str) -> Path:
    """A policy of the smallest size."""
    done = run("policies", *BASE, *more, "--out", str(out))
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("policies/*/*")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("flow"), *FLOW)


def only(out: Path) -> dict:
    (path,) = out.glob("finetune/*/*/scores.json")
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "policy", "simulator"),
    [
        ("dppo", "base", "jax"),
        ("dppo", "base", "host"),
        ("reinflow", "flow", "jax"),
        ("dsrl", "base", "jax"),
        ("expo", "base", "host"),
    ],
)
def test_a_killed_run_ends_with_the_same_numbers(tmp_path, request, method, policy, simulator):
    def script(out, *more, code=None):
        argv = ("--method", method, "--policy", str(request.getfixturevalue(policy)), "--preset", "smoke")
        argv += ("--updates", "3", "--evaluation.every", "1", "--simulator", simulator)
        return run("finetune", *argv, *more, "--out", str(out), code=code)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = script(whole)
    assert done.returncode == 0, done.stderr
    found = only(whole)
    decisions = 3 * 4 * 4 if method == "dppo" else 8 + 3 * 4  # of methods with a buffer with the first ones
    assert found["steps"] == decisions * 8 and found["score_name"] == "success %"
    assert len(found["base"]["returns"]) == 2
    # The first evaluation is the base policy's; the kill comes in the second one of what was learned.
    target = ("jdp.loops", "score_together") if simulator == "jax" else ("jdp.loops.evaluation", "play")
    killed = script(cut, code=killer("finetune", *target, 3, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert {k: only(cut)[k] for k in ("returns", "base")} == {k: found[k] for k in ("returns", "base")}
    plays_again(cut, simulator)


def plays_again(out: Path, simulator: str) -> None:
    """A fine-tuned run is a policy like any other: loaded, evaluated, filmed; also one of an older jdp."""
    (path,) = out.glob("finetune/*/*")
    loaded = check_plays_as_scored(path, simulator)
    assert (loaded.kind, loaded.name, list(loaded.states)) == ("fine_tuner", "dppo", ["fine_tuner"])
    common = ("--episodes", "2", "--decisions", "1", "--pictures", "1", "--out", str(out))
    done = run("evaluate", str(path), *common)
    assert done.returncode == 0, done.stderr
    (played,) = out.glob("evaluate/*/*")
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
def test_mistakes_get_one_line(tmp_path, base):
    policy = ["--policy", str(base)]
    cases = {
        "no policy": ([], "--policy: give a run of policies.py"),
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
        "learned steps": ([*policy, "--settings.chain.learned", "99"], "learned"),
    }
    check_mistakes("finetune", cases, ["--preset", "smoke", "--out", str(tmp_path / "out")])
    assert not list(tmp_path.rglob("config.json"))
