"""experiments/make_dataset.py and ogbench_proof.py with OGBench's recipe."""

import shutil

import pytest
from scripts import check_mistakes, run

import jdp.data
from jdp.data.recipes import Making

pytest.importorskip("ogbench")
NAME = "pointmaze-medium-stitch-v0"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OGBENCH_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_two_processes_make_what_load_finds_and_the_proof_reads(cache, tmp_path):
    done = run("make_dataset", "--env", NAME, "--rows", "10000", "--processes", "2")
    assert done.returncode == 0, done.stderr
    (path,) = cache.iterdir()
    found = jdp.data.load(NAME, source="recipe", making=Making(rows=10_000))
    assert list(cache.iterdir()) == [path]  # nothing was made again
    assert (
        found.origin.name in done.stdout and found.origin.sha256 in done.stdout and str(path) in done.stdout
    )
    (tmp_path / "real").mkdir()
    shutil.copy(path, tmp_path / "real" / f"{NAME}.npz")
    done = run("ogbench_proof", "--real", str(tmp_path / "real"), "--rows", "10000", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "ogbench_table.md").read_text()
    assert table.strip() in done.stdout and "pointmaze-medium-stitch (50, 50)" in table
    assert "| cells | 5 ± 0 | 5 ± 0 | 1.000 |" in table and "of 6 p-values are below .05" in table


@pytest.mark.slow
def test_mistakes_of_the_proof_get_one_line(tmp_path):
    mistakes = {
        "empty": ([], "no file of it is called pointmaze-medium-navigate-v0.npz"),
        "rows": (["--rows", "0"], "--rows"),
    }
    check_mistakes("ogbench_proof", mistakes, ["--real", str(tmp_path)])
