"""world_models.py as a user runs it: whole, killed, given wrong input; and what its measures say."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from scripts import check_mistakes, hdf5, killer, run

ALWAYS = ["--preset", "smoke", "--source", "bundled", "--env", "hopper-medium"]
TINY = [
    *ALWAYS,
    *("--horizon", "5", "--length", "9", "--trajectories", "6", "--updates", "4", "--seeds", "2"),
    *("--diffusion.steps", "4", "--diffusion.batch-size", "8", "--network.features", "8"),
    *("--sampler.steps", "3", "--ensemble.hidden", "8", "--ensemble.batch-size", "4096"),
    *("--diffusion-step.steps", "5", "--diffusion-step.features", "8", "--td3-bc.hidden", "8"),
]


def script(out: Path, *arguments: str, code: str | None = None):
    return run("world_models", *TINY, *arguments, "--out", str(out), code=code)


def measured(out: Path) -> list[dict]:
    (path,) = out.glob("world_models/*/*/scores.json")
    return json.loads(path.read_text())["measured"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    done = script(out)
    assert done.returncode == 0, done.stderr
    for text in (
        "ensemble, policy",
        "ensemble without noise",
        "diffusion step",
        "unguided",
        "policy-guided, coefficient 1",
    ):
        assert text in done.stdout
    return out


@pytest.mark.slow
def test_every_kind_is_measured_at_every_position(whole):
    (folder,) = whole.glob("world_models/*/*")
    assert (folder / "figures/claim.png").stat().st_size > 10_000
    for seed in measured(whole):
        for kind, found in seed.items():
            assert len(found["median_by_position"]) == 9 and found["transitions"] > 0, kind
            assert set(found["ranges"]) <= {"1-4", "5-9"}
        # The simulator agrees with itself: recorded transitions have no error, and actions of the policy
        # have the highest likelihood there is, that of three numbers at their mean.
        assert seed["data"]["ranges"]["1-4"]["error"] < 1e-9 and seed["data"]["mean"] < 1e-9
        for name in ("ensemble", "diffusion step"):
            np.testing.assert_allclose(
                seed[f"{name} 0"]["ranges"]["1-4"]["likelihood"], -1.5 * np.log(2 * np.pi), rtol=1e-4
            )
        assert seed["ensemble without noise 0"]["ranges"]["1-4"]["error"] > 1e-6  # untrained, it is wrong


@pytest.mark.slow
def test_killed_it_ends_with_the_same_numbers(whole, tmp_path):
    # Between two models of the second seed, when the first seed is trained and measured.
    killed = script(tmp_path, code=killer("world_models", "jdp.loops", "train_world_model", 4, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert measured(tmp_path) == measured(whole)


def test_mistakes_get_one_line(tmp_path):
    endless = hdf5(
        tmp_path / "endless.hdf5",
        rows=600,
        observations=np.zeros((600, 3), np.float32),
        actions=np.zeros((600, 1), np.float32),
        terminals=np.zeros(600, bool),
    )
    task = ["--env", str(endless), "--source", "file", "--env-id", "Pendulum-v1"]
    cases = {
        "horizon": (["--horizon", "100000"], "choose a horizon <= 1000"),
        "no rule, no terminals": (task, "--ensemble.termination never"),
        "no such simulator": ([*task, "--ensemble.termination", "never"], "Pendulum-v1"),
        "coefficient": (["--coefficients", "0"], "--coefficients"),
        "length": (["--length", "0"], "--length"),
        "diffusion step": (["--diffusion-step.sampler", "eular"], "euler"),
        "typo in an option": (["--trajectory", "1"], "--trajectories"),
    }
    check_mistakes("world_models", cases, [*ALWAYS, "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").rglob("config.json"))
