"""online_rl.py as a user runs it: killed and resumed, in JAX and on the host, and given wrong input."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import check_mistakes, check_plays_as_scored, killer, run

TINY = ["--preset", "smoke", "--updates", "60", "--evaluation.every", "30"]
BUFFER = ("--settings.acting.warm-up", "40", "--settings.acting.batch-size", "8")
OWN = {  # settings, and steps of the task in 60 updates, the buffer's first ones with them
    "td3": ((*BUFFER, "--settings.hidden", "8", "8"), 40 + 60),
    "gorl": (
        ("--settings.hidden", "8", "8", "--settings.refits", "20", "40", "--settings.acting.steps", "8"),
        60 * 4 * 8,
    ),
    "mbdpo": (
        (
            *BUFFER,
            *("--settings.horizon", "3", "--settings.levels", "2", "--settings.samples", "8"),
            *("--settings.elites", "4", "--settings.distilled", "4", "--settings.distilled-samples", "8"),
            *("--settings.network.features", "8", "--settings.network.blocks", "1"),
        ),
        40 + 60,
    ),
}


def script(out: Path, *arguments: str, code: str | None = None):
    return run("online_rl", *TINY, *arguments, "--out", str(out), code=code)


def only(out: Path, name: str) -> Path:
    (path,) = out.glob(f"online_rl/*/*/{name}")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "simulator"), [("td3", "jax"), ("td3", "host"), ("gorl", "jax"), ("mbdpo", "jax")]
)
def test_a_killed_run_ends_with_the_same_numbers(tmp_path, agent, simulator):
    (settings, steps), whole, cut = OWN[agent], tmp_path / "whole", tmp_path / "cut"
    options = ("--agent", agent, "--simulator", simulator, *settings)
    done = script(whole, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(only(whole, "scores.json").read_text())
    assert np.shape(found["returns"]) == (2, 2) and found["score_name"] == "return"
    assert found["steps"] == steps
    target = ("jdp.loops", "score_together") if simulator == "jax" else ("jdp.loops.evaluation", "play")
    killed = script(cut, *options, code=killer("online_rl", *target, 2, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(cut, *options, "--resume")
    assert done.returncode == 0, done.stderr
    again = json.loads(only(cut, "scores.json").read_text())
    assert (again["returns"], again["seeds"]) == (found["returns"], found["seeds"])

    loaded = check_plays_as_scored(only(cut, "scores.json").parent, simulator)
    assert (loaded.kind, loaded.name, list(loaded.states)) == ("online", agent, ["agent"])
    policy, seen = loaded.method.policy, np.zeros((4, 3), np.float32)
    action = policy.act(
        jax.random.key(0), loaded.state(1), policy.init(seen), seen, np.zeros((4, 0), np.float32)
    )[1]
    assert action.action.shape == (4, 1)


@pytest.mark.slow
def test_an_agent_that_sees_the_goal_is_played_and_scored_by_it(tmp_path):
    options = ("--agent", "ppo", "--env", "PointMaze_UMaze-v3", "--preset", "smoke", "--updates", "2")
    done = run("online_rl", *options, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    path = only(tmp_path, "scores.json").parent
    common = ("--episodes", "2", "--decisions", "1", "--pictures", "1", "--out", str(tmp_path))
    done = run("evaluate", str(path), *common)
    assert done.returncode == 0, done.stderr
    (played,) = tmp_path.glob("evaluate/*/*")
    assert json.loads((played / "scores.json").read_text())["score_name"] == "success %"
    assert (played / "figures" / "closed_loop.gif").exists()


def test_mistakes_get_one_line(tmp_path):
    cases = {
        "agent": (["--agent", "ddpg"], "no online 'ddpg': choose one of cem, gorl, mbdpo, mppi, ppo, sac"),
        "task": (["--env", "Hoper-v5"], "Hoper-v5"),
        "no JAX version": (["--env", "Ant-v5", "--simulator", "jax"], "Ant-v5 has no JAX version"),
        "goals on the host": (["--env", "PointMaze_UMaze-v3", "--simulator", "host"], "JAX tasks alone"),
        "no simulator to plan in": (["--agent", "mppi", "--env", "Ant-v5"], "Ant-v5 has no JAX version"),
        "elites": (["--agent", "mbdpo", "--settings.elites", "9999"], "elites is 9999"),
        "share": (["--settings.acting.offline-share", "2"], "offline_share"),
        "updates": (["--updates", "0"], "--updates is 0"),
        "setting": (["--settings.acting.warmup", "3"], "warmup"),
        "nothing to resume": (["--resume", "--seed", "77"], "start without --resume"),
    }
    check_mistakes("online_rl", cases, ["--preset", "smoke", "--out", str(tmp_path / "out")])
    assert not list(tmp_path.rglob("config.json"))
