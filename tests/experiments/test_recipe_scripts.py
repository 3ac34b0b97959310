"""experiments/make_dataset.py and recipe_proof.py: what they write, and one line for a mistake."""

import json
import shutil

import numpy as np
import pytest
from scripts import check_mistakes, run

import jdp.data
from jdp.data.recipes import Making


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "cache"


def test_it_makes_what_load_finds_and_a_minari_dataset(cache):
    pytest.importorskip("gymnasium_robotics")
    done = run("make_dataset", "--rows", "300", "--seed", "2", "--minari", "jdp/test-v0")
    assert done.returncode == 0, done.stderr
    path = next(cache.iterdir())
    found = jdp.data.load("maze2d-umaze-v1", source="recipe", making=Making(seed=2, rows=300))
    assert list(cache.iterdir()) == [path]  # nothing was made again
    assert found.origin.name in done.stdout and found.origin.sha256 in done.stdout
    assert "CC BY 4.0" in done.stdout and str(path) in done.stdout
    back = jdp.data.load("jdp/test-v0")
    np.testing.assert_array_equal(back.observations, found.observations[:-1])


def test_a_file_of_the_recipe_agrees_with_the_recipe(cache, tmp_path):
    made = jdp.data.load("maze2d-umaze-v1", source="recipe", making=Making(rows=2000)).origin.path
    (tmp_path / "real").mkdir()
    shutil.copy(made, tmp_path / "real" / "maze2d-umaze-sparse-v1.hdf5")
    size = ("--rows", "2000", "--chains", "3", "--out", str(tmp_path / "out"))
    done = run("recipe_proof", "--real", str(tmp_path / "real"), *size)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "out" / "maze2d.json").read_text())
    facts = numbers["steps_and_routes"]["umaze"]
    assert facts["exact"] == facts["steps"] == 1999 and facts["routes followed"] == facts["routes"]
    assert set(numbers["spreads"]) == {"recipe", "without noise", "jittered goal"}
    table = (tmp_path / "out" / "maze2d_table.md").read_text()
    assert table.strip() in done.stdout and "outside of the range of: without noise" in table
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_mistakes_get_one_line(cache, tmp_path):
    check_mistakes(
        "make_dataset",
        {
            "recipe": (["--env", "hopper-medium"], "no recipe makes 'hopper-medium'"),
            "ogbench": (
                ["--env", "antmaze-large-navigate-v0"],
                "no recipe makes 'antmaze-large-navigate-v0'",
            ),
            "part": (["--env", "pointmaze-medium-stitch-v0-val", "--rows", "9"], "ask for 2010 rows or more"),
            "processes": (["--processes", "0"], "0 processes"),
            "rows": (["--rows", "0"], "rows must be at least 1"),
            "seed": (["--seed", "-3"], "--seed is -3"),
            "minari": (["--minari", "jdp/unversioned"], "needs a version"),
        },
        [],
    )
    check_mistakes(
        "recipe_proof",
        {
            "empty": ([], "no file of it is called maze2d-umaze-sparse-v1.hdf5"),
            "chains": (["--chains", "0"], "--chains"),
        },
        ["--real", str(tmp_path)],
    )
