"""Run directories: found again, held by one process, and cut where a run goes on."""

import json
import math
import re
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from jdp.errors import StorageError, UserError
from jdp.runs import (
    dataset_folder,
    finished_run,
    follow_run,
    provenance,
    resume_run,
    start_run,
    unfinished_run,
)
from jdp.runs.directories import config_hash, to_json
from jdp.runs.provenance import SETTINGS

CONFIG = {"env": "hopper", "agent": {"rate": 3e-4, "widths": (256, 256)}, "seed": 0}
FACTS = {"sha256": "abc"}


def begin(out, config=CONFIG):
    run = start_run(out, "pgd", "hopper/medium v2", config, FACTS)
    run.lock.close()
    return run


def again(out, which="latest", config=CONFIG, facts=FACTS):
    return resume_run(out, "pgd", "hopper/medium v2", config, which, facts)


def test_resume_finds_the_newest_unfinished_run_of_its_configuration(tmp_path):
    runs = [begin(tmp_path) for _ in range(3)]
    begin(tmp_path, {**CONFIG, "seed": 1})
    assert len({run.path for run in runs}) == 3
    found = again(tmp_path)
    assert found.path == runs[2].path
    found.write("scores.json", {"score": 1.0})
    found.lock.close()
    assert again(tmp_path).path == runs[1].path


def test_nothing_to_resume(tmp_path):
    begin(tmp_path).write("scores.json", {})
    for config in (CONFIG, {**CONFIG, "seed": 5}):
        with pytest.raises(UserError, match="no unfinished run"):
            again(tmp_path, config=config)
    with pytest.raises(UserError, match="no run directory"):
        again(tmp_path, which=str(tmp_path))


def test_what_an_automatic_resume_finds(tmp_path):
    where = (tmp_path, "pgd", "hopper/medium v2", CONFIG)
    assert finished_run(*where, FACTS) is None and unfinished_run(*where) is None
    runs = [begin(tmp_path) for _ in range(4)]
    begin(tmp_path, {**CONFIG, "seed": 1}).write("scores.json", {})
    assert finished_run(*where, FACTS) is None and unfinished_run(*where) == runs[3].path
    for run in (runs[0], runs[1], runs[3]):
        run.write("scores.json", {})
    assert finished_run(*where, FACTS) == runs[3].path and unfinished_run(*where) == runs[2].path
    assert finished_run(*where, {"sha256": "other data"}) is None  # its scores are not this dataset's


def test_other_processes_have_a_copy_of_all_but_checkpoints(tmp_path):
    run = begin(tmp_path)
    run.log("diffuser", 10, {"loss": 1.0})
    run.write("checks.json", {"found": 1})
    (run.folder("diffuser") / "10").mkdir(parents=True)
    other = follow_run(run.path)
    assert other.records() == run.records() and other.read("checks.json") == {"found": 1}
    assert other.folder("diffuser") == run.folder("diffuser") and not (other.path / "checkpoints").exists()
    other.log("diffuser", 20, {"loss": 0.5})
    other.write("scores.json", {})
    assert len(run.records()) == 1 and run.read("scores.json") is None


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    run = begin(tmp_path)
    run.log("diffuser", 10, {"loss": 1.0})
    size, before = (run.path / "metrics.jsonl").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # the system refuses to write on, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, before[1]))
        with pytest.raises(StorageError, match=r"metrics.jsonl \(File too large\): make room"):
            run.log("diffuser", 20, {"loss": 0.5})
        with pytest.raises(StorageError, match=r"scores.json \(File too large\)"):
            run.write("scores.json", {"returns": [0.0] * 1000})
        with pytest.raises(UserError, match=r"config.json \(File too large\)"):
            begin(tmp_path / "elsewhere")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.read("scores.json") is None and not list(tmp_path.glob("elsewhere/*/*/*"))
    found = again(tmp_path)
    found.log("diffuser", 20, {"loss": 0.5})
    assert [r["step"] for r in found.records()] == [10, 20]


def test_another_configuration_is_refused_by_the_name_of_its_field(tmp_path):
    path = str(begin(tmp_path).path)
    other = {**CONFIG, "agent": {**CONFIG["agent"], "rate": 1e-3}}
    with pytest.raises(UserError, match=r"agent\.rate: 0\.0003 there, 0\.001 here"):
        again(tmp_path, path, other)
    with pytest.raises(UserError, match=r"began with other data .sha256: abc there, other data here"):
        again(tmp_path, facts={"sha256": "other data"})
    assert str(again(tmp_path, path).path) == path


def test_a_run_in_use_is_refused(tmp_path):
    run = start_run(tmp_path, "pgd", "hopper/medium v2", CONFIG, FACTS)
    with pytest.raises(UserError, match="in use"):
        again(tmp_path)
    run.lock.close()
    assert again(tmp_path).path == run.path


def test_cut_drops_what_will_be_made_again(tmp_path):
    run = begin(tmp_path)
    for step in (10, 20, 30):
        run.log("diffuser", step, {"loss": np.float32(step)})
    run.log("agent", 30, {"q": math.nan})
    run.cut("diffuser", 20)
    assert [(r["phase"], r["step"]) for r in run.records()] == [
        ("diffuser", 10),
        ("diffuser", 20),
        ("agent", 30),
    ]
    assert run.records("agent") == [{"phase": "agent", "step": 30, "q": None}]


@pytest.mark.parametrize("left", ['{"phase": "diffuser", "st', '{"phase": "lost", "step": 1}'])
def test_a_half_written_last_line_is_dropped_and_spoils_no_other(tmp_path, left):
    run = begin(tmp_path)
    run.log("diffuser", 10, {"loss": 1.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(left)  # killed here, before the end of the line
    assert [r["step"] for r in run.records("diffuser")] == [10]
    found = again(tmp_path)
    found.log("diffuser", 20, {"loss": 0.5})
    assert [r["step"] for r in found.records("diffuser")] == [10, 20]
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_late_starter_takes_the_next_name_and_removes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")  # all begin in one second
    first = start_run(tmp_path, "pgd", "hopper", CONFIG, FACTS)
    first.log("agent", 1, {"loss": 1.0})
    runs = [start_run(tmp_path, "pgd", "hopper", CONFIG, FACTS) for _ in range(3)]
    assert len({run.path for run in (first, *runs)}) == 4
    assert all((run.path / ".lock").exists() and run.read("config.json") for run in (first, *runs))
    assert first.records() == [{"phase": "agent", "step": 1, "loss": 1.0}]


def test_many_processes_that_begin_at_once_have_a_run_each(tmp_path):
    gate = threading.Barrier(8)

    def start(_):
        gate.wait()
        return start_run(tmp_path, "pgd", "hopper", CONFIG, FACTS)

    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(start, range(8)))
    assert len({run.path for run in runs}) == 8 and all((run.path / ".lock").exists() for run in runs)


def test_a_file_in_the_way_is_one_line_and_stays(tmp_path):
    (tmp_path / "pgd").write_text("mine")
    with pytest.raises(UserError, match="cannot write to"):
        begin(tmp_path)
    assert (tmp_path / "pgd").read_text() == "mine"


def test_folders_of_datasets_begin_with_a_letter_or_digit_and_differ():
    assert dataset_folder("hopper-medium") == "hopper-medium"
    assert dataset_folder("mujoco/hopper/medium-v0") == "mujoco-hopper-medium-v0"
    names = ["./mine.hdf5", "../mine.hdf5", "~/.data/x.npz", "数据.hdf5", "данные", "набор", "a b", "..."]
    found = [dataset_folder(name) for name in names]
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) for name in found)
    assert len(set(found)) == len(names) - 1  # the first two are files of one name


def config_of(run):
    found = run.read("config.json")
    assert found is not None
    return found


def test_every_process_of_a_run_is_recorded_and_what_differs_is_said(tmp_path, monkeypatch):
    run = begin(tmp_path)
    assert again(tmp_path).notice == ""
    written = config_of(run)
    written |= {"python": "3.9.0", "commit": "0123456789ab", "devices": ["cpu: cpu"] * 7}
    written["packages"]["jax"] = "0.1.0"
    run.write("config.json", written)
    found = again(tmp_path)
    for said in ("jax 0.1.0 there", "python 3.9.0", "commit 0123456789ab", "7 x cpu: cpu there"):
        assert said in found.notice
    last = config_of(found)
    assert last["packages"]["jax"] == "0.1.0" and len(last["resumed"]) == 2
    assert last["resumed"][-1]["packages"]["jax"] == jax.__version__ and last["resumed"][-1]["time"]


@pytest.mark.parametrize(("name", "value"), [("jax_enable_x64", True), ("jax_default_prng_impl", "rbg")])
def test_other_settings_of_jax_are_refused(tmp_path, name, value):
    run = begin(tmp_path)
    written = config_of(run)
    written["settings"][name] = value
    run.write("config.json", written)
    with pytest.raises(UserError, match=f"{SETTINGS[name]}: {value} there"):
        again(tmp_path)
    del written["settings"]  # as older runs have it
    run.write("config.json", written)
    assert again(tmp_path).path == run.path


def test_a_checkout_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance()["commit"] is None


def test_what_older_runs_were_not_asked_is_no_other_data(tmp_path):
    begin(tmp_path)
    asked = {**FACTS, "spec": {"action_low": None, "env_spec": None}, "diffuser_from": None}
    assert again(tmp_path, facts=asked).path.exists()


def test_hashes_see_values_and_not_containers():
    assert config_hash({"a": (1, 2), "b": np.float64(0.5)}) == config_hash({"b": 0.5, "a": [1, 2]})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert to_json({"x": np.arange(2), "y": (math.inf, 1)}) == {"x": [0, 1], "y": [None, 1]}
