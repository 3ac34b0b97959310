"""sweep.py as a user runs it: killed, continued, stopped, given mistakes; with scripts that train
nothing, and once with a real one."""

import json
import os
import shutil
import signal
import sys
from collections import Counter

import pytest
from scripts import EXPERIMENTS, TIMEOUT, check_mistakes, run
from sweeps import alive, calls, cells, grid, start, wait, write
from table_runs import tables

sys.path.insert(0, str(EXPERIMENTS))
import sweep

pytestmark = pytest.mark.usefixtures("gate")


def test_a_mistake_on_the_command_line_or_in_an_option_is_one_line(tmp_path):
    option = write(tmp_path, "script = 'offline_rl.py'\n[fixed]\nagent = 'bc'\nupdate = 5", "a.toml")
    value = write(tmp_path, "script = 'offline_rl.py'\ncross.updates = [1, 'many']", "v.toml")
    nested = write(tmp_path, "script = 'offline_rl.py'\nfixed.settings.hiden = 5", "n.toml")
    damaged, file = tmp_path / "sweeps" / "d" / "cells.json", tmp_path / "file"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    file.touch()
    fake = str(grid(tmp_path, "ok"))
    cases = {
        "grid": (["exmple"], "or one of example"),
        "option": ([str(option)], "--updates"),
        "value": ([str(value)], "cell many: "),
        "nested": ([str(nested)], "--settings.hidden"),
        "jobs": (["--jobs", "-1"], "--jobs must"),
        "retries": (["--retries", "-1"], "--retries at least"),
        "slurm": ([fake, "--cluster", "slurm"], "srun"),
        "request": ([fake, "--cluster", "local", "--request", "patition", "gpu"], "patition"),
        "damaged": ([str(write(tmp_path, "script = 'fake.py'", "d.toml"))], "move"),
        "unwritable": ([fake, "--out", str(file)], str(file)),
    }
    check_mistakes("sweep", cases, ["--out", str(tmp_path)])


def test_what_fails_is_told_and_stops_nothing_and_what_asks_for_it_is_run_again(tmp_path):
    modes = ("wrong", "mistake", "killed", "crash", "ok", "thrice")
    path = grid(tmp_path, *modes)
    out, _ = start(path, "--dry-run").communicate(timeout=TIMEOUT)
    command = f"python {os.path.relpath(tmp_path / 'fake.py')} --mode"
    assert out.splitlines()[-7:] == [
        "to do      6 of 6 cells",
        *(f"{command} {mode} --out {tmp_path} --resume auto" for mode in modes),
    ]
    assert not (tmp_path / "sweeps").exists() and not calls(tmp_path)  # nothing was started

    done = start(path, "--jobs", "2", "--retries", "2")
    out, err = done.communicate(timeout=TIMEOUT)
    assert done.returncode == 1
    found = cells(tmp_path)
    assert {name: (c["status"], c["error"]) for name, c in found.items()} == {
        "wrong": ("failed", "ValueError: no luck"),
        "mistake": ("failed", "--value is wrong"),
        "killed": ("failed", "killed by SIGKILL"),
        "crash": ("finished", None),
        "ok": ("finished", None),
        "thrice": ("finished", None),
    }
    times = {"mistake": 1, "ok": 1} | dict.fromkeys(("wrong", "killed", "crash", "thrice"), 3)
    assert Counter(call[0].removesuffix("-0") for call in calls(tmp_path)) == times
    assert found["ok"]["run"] == str(tmp_path / "fake" / "data" / "ok-0")
    assert "grid: 3 finished, 3 failed, 0 running of 6" in out
    assert f"{tmp_path}/sweeps/grid/logs/wrong.err" in err and "Traceback" not in err
    assert all(call[3] == "auto" for call in calls(tmp_path))

    # Once more: what is finished is not, what failed is; a cell with another command is a new one.
    (tmp_path / "calls").unlink()
    grid(tmp_path, "wrong", "ok", "thrice", more="[[part]]\n[[part]]\nfixed.new = 1\ncross.mode = ['ok']")
    done = start(path, "--retries", "0")
    out, _ = done.communicate(timeout=TIMEOUT)
    assert done.returncode == 1 and "to do      2 of 4 cells" in out
    assert Counter(call[0] for call in calls(tmp_path)) == {"wrong-0": 1, "ok-0": 1}
    assert cells(tmp_path)["ok-3"]["run"] == found["ok"]["run"]


def test_a_killed_sweep_goes_on_with_what_is_not_finished(tmp_path):
    path = grid(tmp_path, "ok", "slow", more="cross.seed = [0, 1]")
    first = start(path, "--jobs", "2", CUDA_VISIBLE_DEVICES="4,7")
    wait(lambda: len([call for call in calls(tmp_path) if call[0].startswith("slow")]) == 2)
    slow = [call for call in calls(tmp_path) if call[0].startswith("slow")]
    cores = [set(call[2].split(",")) for call in slow]
    assert len(os.sched_getaffinity(0)) < 2 or not cores[0] & cores[1]
    assert {call[4] for call in slow} == {"4", "7"}
    wait(lambda: [c["status"] for c in cells(tmp_path).values()] == 2 * ["finished"] + 2 * ["running"])
    first.kill()
    first.wait()
    (tmp_path / "gate").touch()
    wait(lambda: not any(alive(call[1]) for call in slow))  # they have their scores, which the sweep tells
    second = start(path, "--jobs", "2")
    out, err = second.communicate(timeout=TIMEOUT)
    assert second.returncode == 0, err
    assert "to do      2 of 4 cells" in out
    assert {c["status"] for c in cells(tmp_path).values()} == {"finished"}
    assert sorted(call[0] for call in calls(tmp_path)) == sorted(["ok-0", "ok-1", *2 * ["slow-0", "slow-1"]])


def test_a_sweep_that_is_told_to_stop_stops_its_cells_and_goes_on_later(tmp_path):
    path = grid(tmp_path, "slow", "ok")
    first = start(path, "--jobs", "1")
    wait(lambda: calls(tmp_path))
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    _, err = first.communicate(timeout=TIMEOUT)
    assert first.returncode == 130 and "the same command goes on" in err
    assert not alive(calls(tmp_path)[0][1])
    assert [c["status"] for c in cells(tmp_path).values()] == ["waiting", "waiting"]
    (tmp_path / "gate").touch()
    second = start(path, "--jobs", "1")
    second.communicate(timeout=TIMEOUT)
    assert second.returncode == 0
    assert [call[0] for call in calls(tmp_path)] == ["slow-0", "slow-0", "ok-0"]


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sweep.places(None) == sweep.places(2) == [([0, 1], {}), ([2, 3, 4], {})]
    assert len(sweep.places(7)) == 7 and all(cores for cores, _ in sweep.places(7))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    shown = [[place[1]["CUDA_VISIBLE_DEVICES"] for place in sweep.places(jobs)] for jobs in (None, 2, 4)]
    assert shown == [["4", "5", "6"], ["4", "5"], ["4", "5", "6", "4"]]


def test_a_real_cell_ends_in_a_run_that_a_table_can_be_made_of_and_keeps(tmp_path):
    path = write(
        tmp_path,
        """
        script = "offline_rl.py"
        cross = { agent = ["bc"], seed = [3] }
        [fixed]
        seeds = 1
        env = "hopper-medium"
        source = "bundled"
        preset = "cpu"
        updates = 20
        settings.hidden = [8]
        evaluation = { episodes = 1, every = 20 }
        """,
    )
    done = run("sweep", str(path), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.glob("offline_rl/hopper-medium/*")
    assert cells(tmp_path)["bc-3"]["run"] == str(made) and (made / "scores.json").exists()
    assert json.loads((made / "config.json").read_text())["config"]["seed"] == 3
    # With the table alone, as git has it, the cell counts as finished, here or on another machine.
    tables(tmp_path, "--sweep", "grid", name="grid")
    shutil.rmtree(tmp_path / "sweeps")
    shutil.rmtree(tmp_path / "offline_rl")
    out, _ = start(path, "--dry-run").communicate(timeout=TIMEOUT)
    assert "to do      0 of 1 cells" in out
