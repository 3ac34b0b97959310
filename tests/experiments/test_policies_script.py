"""policies.py as a user runs it: killed while it plays and resumed, given wrong input."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from scripts import check_mistakes, hdf5, killer, run

import jdp

ALWAYS = ["--policy", "idql", "--preset", "smoke", "--source", "bundled", "--env", "hopper-medium"]
TINY = [
    *ALWAYS,
    *("--updates", "20", "--batch-size", "16", "--settings.features", "8", "--settings.candidates", "4"),
    *("--settings.critic-hidden", "8", "--evaluation.decisions", "2"),
]


def script(out: Path, *arguments: str, code: str | None = None):
    return run("policies", *TINY, *arguments, "--out", str(out), code=code)


def scores(out: Path) -> dict:
    (path,) = out.glob("policies/*/*/scores.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_killed_while_it_plays_a_run_ends_with_the_same_numbers(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = script(whole)
    assert done.returncode == 0, done.stderr
    found = scores(whole)
    assert np.shape(found["returns"]) == (2, 2) and found["score_name"] == "normalised score"
    spec = jdp.data.load("hopper-medium", source="bundled").spec
    assert spec.score_range is not None
    mean = jdp.evaluation.normalised_score(found["returns"], spec.score_range).mean(axis=1)
    np.testing.assert_allclose(found["seeds"], mean, rtol=1e-6)
    killed = script(cut, code=killer("policies", "jdp.loops.evaluation", "play", 2, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(cut, "--resume")
    assert done.returncode == 0 and "play seed 0" not in done.stdout, done.stderr
    for key in ("returns", "success", "lengths", "seeds"):
        assert scores(cut)[key] == found[key]


def test_mistakes_get_one_line(tmp_path):
    other = ["--env", str(hdf5(tmp_path / "hopper.hdf5")), "--source", "file", "--env-id"]
    cases = {
        "policy": (["--policy", "iqdl"], "did you mean idql?"),
        "dataset": (["--env", "hoper-medium"], "hopper-medium"),
        "no maze": (["--evaluation.goal", "1", "1"], "no maze"),
        "other task": ([*other, "Walker2d-v5"], "give the task it was collected in"),
        "no such task": ([*other, "Hoper-v5"], "Hoper-v5"),
        "expectile": (["--settings.expectile", "2"], "expectile"),
        "sampler": (["--policy", "beso", "--settings.sampler", "heum"], "heun"),
        "chunk": (["--policy", "diffusion_policy", "--settings.execute", "99"], "execute"),
        "nothing to resume": (["--resume", "--seed", "77"], "start without --resume"),
        "no seeds": (["--seeds", "0"], "--seeds"),
        "typo in an option": (["--settings.expectlie", "1"], "--settings.expectile"),
    }
    check_mistakes("policies", cases, [*ALWAYS, "--out", str(tmp_path / "out")])
    assert not list(tmp_path.rglob("config.json"))
