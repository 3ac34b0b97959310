"""collect_locomotion.py as a user runs it: killed and resumed, its sets opened, and given wrong input."""

import hashlib
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from scripts import EXPERIMENTS, check_mistakes, killer, run

import jdp

TINY = [
    *("--preset", "smoke", "--updates", "200", "--evaluation.every", "100", "--rows", "300"),
    *("--settings.hidden", "8", "8", "--settings.acting.warm-up", "40", "--settings.acting.batch-size", "8"),
]
NAMES = [f"hopper-{quality}" for quality in ("random", "medium-replay", "medium", "expert", "medium-expert")]
# A limit on the size of a file stands for a full disk: the writer meets the same OSError. It is set when the
# first set is written and no sooner, for git would leave its locks behind.
FULL_DISK = f"""
import resource, sys
sys.path.insert(0, {str(EXPERIMENTS)!r})
import collect_locomotion
from command_line import run_main
from jdp.runs import datasets
original = datasets.save_d4rl
def save(*args, **kwargs):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    return original(*args, **kwargs)
datasets.save_d4rl = save
run_main(collect_locomotion.main)
"""


def script(out: Path, *more: str, code: str | None = None):
    return run("collect_locomotion", *TINY, *more, "--out", str(out), code=code)


def only(out: Path) -> Path:
    (path,) = out.glob("collect_locomotion/Hopper-v5/*")
    return path


@pytest.mark.slow
def test_a_family_is_the_same_after_kills_and_opens_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = script(whole)
    assert done.returncode == 0, done.stderr
    # One kill in the second evaluation, and one between the third set's two files.
    for target, resume in (
        (("jdp.loops.evaluation", "play", 2), ()),
        (("jdp.runs.datasets", "save_minari", 2), ("--resume",)),
    ):
        killed = script(cut, *resume, code=killer("collect_locomotion", *target, 0.0))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert "minutes in all, on" in done.stdout
    sets = {}
    for name in NAMES:
        one, other = (only(out) / "datasets" / f"{name}.hdf5" for out in (whole, cut))
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, other)]
        assert digests[0] == digests[1], name
        sets[name] = data = jdp.data.load(str(other))
        assert data.origin.name.startswith(f"{name} (d4rl-style: ") and data.spec.env_id == "Hopper-v5"
        card = json.loads(other.with_suffix(".json").read_text())
        twin = jdp.data.load(card["minari"])
        np.testing.assert_array_equal(twin.observations, data.observations)
        np.testing.assert_array_equal(twin.terminals, data.terminals)
    counts = [len(sets[name]) for name in NAMES]
    assert (counts[0], *counts[2:]) == (300, 300, 300, 600) and counts[1] in (140, 240)

    # What was learned on the way opens as any run, and its sets train any agent.
    kept = sorted((only(cut) / "snapshots").iterdir())
    assert [path.name for path in kept] == ["000000100.jdp", "000000200.jdp"]
    last, run_ = jdp.load_pretrained(kept[-1]), jdp.load_run(only(cut))
    assert (last.name, run_.name) == ("sac", "sac")
    trained = ("--preset", "smoke", "--agent", "bc", "--updates", "10", "--out", str(tmp_path / "bc"))
    done = run("offline_rl", "--env", str(only(cut) / "datasets" / "hopper-medium.hdf5"), *trained)
    assert done.returncode == 0 and "hopper-medium (d4rl-style: SAC of jdp" in done.stdout, done.stderr


@pytest.mark.slow
def test_mistakes_get_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    (tmp_path / "minari" / "jdp" / "mine" / "expert-v0").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    cases = {
        "task": (["--env", "Ant-v5"], "made of Hopper-v5, HalfCheetah-v5, Walker2d-v5"),
        "old version": (["--env", "Hopper-v2"], "made of Hopper-v5"),
        "toy": (["--env", "Pendulum-v1"], "made of Hopper-v5"),
        "rows": (["--rows", "0"], "--rows is 0"),
        "no buffer": (["--agent", "ppo"], "keeps no replay buffer"),
        "agent": (["--agent", "ddpg"], "no online 'ddpg'"),
        "seeds": (["--seeds", "2"], "give its --seed"),
        "simulator": (["--simulator", "jax"], "leave it out"),
        "share": (["--settings.acting.offline-share", ".5"], "leave it out"),
        "minari": (["--minari", "jdp/mine"], "exists already"),
        "unwritable": (["--out", str(tmp_path / "file")], "choose another --out"),
        "nothing to resume": (["--resume"], "start without --resume"),
        "no run": (["--resume", str(tmp_path)], "no run directory"),
    }
    check_mistakes("collect_locomotion", cases, ["--preset", "smoke", "--out", str(tmp_path / "out")])
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.slow
def test_another_runs_directory_and_a_full_disk_get_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    killed = script(tmp_path, code=killer("collect_locomotion", "jdp.loops.evaluation", "play", 1, 0.0))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = script(tmp_path, "--seed", "1", "--resume", str(only(tmp_path)))
    assert done.returncode == 2 and "another configuration (seed: 0 there, 1 here)" in done.stderr
    done = script(tmp_path / "full", code=FULL_DISK)
    assert done.returncode == 2 and "could not write" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
