"""experiments/collect_pointmaze.py: what it writes, and one line for a mistake."""

import sys

import numpy as np
import pytest
from scripts import check_mistakes, run

import jdp.data
from jdp.tasks.collect import Collection, collect_point_maze

pytest.importorskip("gymnasium_robotics")


def test_it_writes_what_the_collector_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    out, flags = (
        tmp_path / "new" / "set.hdf5",
        ("--maze", "umaze", "--steps", "300", "--episode-steps", "200"),
    )
    done = run("collect_pointmaze", *flags, "--seed", "5", "--out", str(out), "--minari", "jdp/test-v0")
    assert done.returncode == 0, done.stderr
    assert "300 steps, 2 episodes" in done.stdout and done.stderr == ""
    steps, timeouts = collect_point_maze(Collection("umaze", steps=300, episode_steps=200, seed=5))
    for name in (str(out), "jdp/test-v0"):
        data = jdp.data.load(name)
        np.testing.assert_array_equal(data.observations, steps.observation)
        np.testing.assert_array_equal(data.actions, steps.action)
        np.testing.assert_array_equal(data.timeouts, timeouts)
        assert data.spec.env_id == "PointMaze_UMaze-v3" and data.spec.goal == (0, 1)
    compact = tmp_path / "compact.hdf5"
    done = run("collect_pointmaze", *flags, "--seed", "5", "--out", str(compact), "--compact")
    data = jdp.data.load(str(compact))
    np.testing.assert_array_equal(data.observations, steps.observation)
    np.testing.assert_array_equal(data.next_valid, ~timeouts)
    assert compact.stat().st_size < out.stat().st_size


def test_mistakes_get_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    always = ["--out", str(tmp_path / "x.hdf5")]
    check_mistakes(
        "collect_pointmaze",
        {
            "maze": (["--maze", "lage"], "did you mean large"),
            "steps": (["--steps", "0"], "steps is 0"),
            "seed": (["--seed", "-3"], "seed is -3"),
            "noise": (["--noise", "nan"], "noise is nan"),
            "folder": (["--out", str(tmp_path)], "is a folder"),
            "unwritable": (["--out", str(tmp_path / "file" / "x.hdf5")], "no folder that can be written to"),
            "minari": (["--minari", "jdp/unversioned"], "needs a version"),
            "unknown option": (["--step", "3"], "--step"),
        },
        always,
    )
    assert not (tmp_path / "x.hdf5").exists()


def test_without_gymnasium_robotics(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(run.__globals__["EXPERIMENTS"])!r})
sys.modules["gymnasium_robotics"] = None
import collect_pointmaze
from command_line import run_main
run_main(collect_pointmaze.main)
"""
    done = run("", "--steps", "10", "--out", str(tmp_path / "x.hdf5"), code=code)
    assert done.returncode == 2 and 'pip install "jdp[robotics]"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not list(tmp_path.iterdir())
    assert sys.modules.get("gymnasium_robotics", True) is not None
