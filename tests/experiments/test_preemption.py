"""Told to stop, or unable to write, a run ends with one line; the same command then ends it as if whole."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scripts import EXPERIMENTS, hdf5, killer, mistakes, run, run_two

AGENT = ["--agent", "bc", "--preset", "smoke", "--settings.hidden", "16", "16", "--updates", "400"]
TINY = [*AGENT, "--evaluation.every", "400", "--evaluation.episodes", "1", "--checkpoint-minutes", "100"]
# When the first of its two chunks of updates ends; when it is to be scored.
TRAINING = killer("offline_rl", "jdp.runs.preemption", "asked", 1, 0.0, signal="SIGTERM")
EVALUATING = killer("offline_rl", "jdp.loops", "play_together", 1, 0.0, signal="SIGTERM")


def arguments(out: Path, data: Path, *more: str) -> list[str]:
    return [*TINY, "--env", str(data), "--out", str(out), *more]


def the_run(out: Path) -> Path:
    (path,) = out.glob("offline_rl/*/*")
    return path


def returns(out: Path) -> list:
    return json.loads((the_run(out) / "scores.json").read_text())["returns"]


def checkpoints_of(out: Path) -> list[str]:
    return [path.name for path in (the_run(out) / "checkpoints" / "agent").iterdir()]


def steps_logged(out: Path) -> list[int]:
    records = map(json.loads, (the_run(out) / "metrics.jsonl").read_text().splitlines())
    return [r["step"] for r in records if r["phase"] == "agent"]


def ended(done: subprocess.CompletedProcess, status: int, words: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == status and len(lines) == 1 and words in lines[0], (done.returncode, done.stderr)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return hdf5(tmp_path_factory.mktemp("data") / "set.hdf5", rows=400)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data) -> Path:
    out = tmp_path_factory.mktemp("whole")
    done = run("offline_rl", *arguments(out, data))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, data) -> Path:
    """A run that got a SIGTERM in its first chunk."""
    out = tmp_path_factory.mktemp("stopped")
    done = run("offline_rl", *arguments(out, data, "--resume", "auto"), code=TRAINING)
    ended(done, 75, "the same command with --resume auto goes on")
    return out


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, of 400 kB; without the right to mount one, a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    with pytest.raises(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_the_same_command_repeated_ends_a_stopped_run_as_if_whole(whole, stopped, data, disk):
    out, mounted = disk
    shutil.copytree(stopped, out, dirs_exist_ok=True)
    assert checkpoints_of(out) == ["200"]
    assert steps_logged(out) == [200] and not (the_run(out) / "scores.json").exists()
    again = arguments(out, data, "--resume", "auto")
    if mounted:
        fill(out / "filler")
        ended(run("offline_rl", *again), 2, "No space left on device")
        (out / "filler").unlink()
    ended(run("offline_rl", *again, code=EVALUATING), 75, "SIGTERM")
    assert steps_logged(out) == [200, 400]
    done = run("offline_rl", *again)
    assert done.returncode == 0, done.stderr
    assert returns(out) == returns(whole)


def test_what_stands_in_the_way_of_going_on_is_said_in_one_line(whole, stopped, data, tmp_path):
    lists = {"finished": arguments(whole, data, "--resume", "auto")}
    words = {"locked": ".lock", "damaged": "cannot be read", "gone": str(data), "other": "other data"}
    for name in words:
        shutil.copytree(stopped, tmp_path / name)
        lists[name] = arguments(tmp_path / name, data, "--resume", "auto")
    lock = the_run(tmp_path / "locked") / ".lock"
    lock.unlink()
    lock.mkdir()  # as little a file to write as one on a disk that has become read-only
    for file in (the_run(tmp_path / "damaged") / "checkpoints" / "agent" / "200").rglob("_METADATA"):
        file.write_text("")
    kept, other = tmp_path / "kept.hdf5", hdf5(tmp_path / "other.hdf5", rows=300)
    first = {
        "gone": f"import os; os.rename({str(data)!r}, {str(kept)!r})",
        "other": f"import os; os.rename({str(other)!r}, {str(data)!r})",
    }
    try:
        found = mistakes("offline_rl", lists, first)
    finally:
        kept.rename(data)
    assert found.pop("finished") == [0, ""]
    assert len(list(whole.glob("offline_rl/*/*"))) == 1  # nothing was begun
    for name, (status, error) in found.items():
        assert status == 2 and len(error.strip().splitlines()) == 1 and words[name] in error, (name, error)
        assert steps_logged(tmp_path / name) == [200]  # as it was


@pytest.mark.slow
def test_two_processes_make_one_run_and_stop_and_go_on_together(whole, data, tmp_path):
    again = arguments(tmp_path, data, "--resume", "auto")
    first = run_two("offline_rl", *again, codes=(None, TRAINING))  # the second alone is told to stop
    assert [done.returncode for done in first] == [75, 75], [done.stderr for done in first]
    assert "SIGTERM" in first[0].stderr and checkpoints_of(tmp_path) == ["200"]
    then = run_two("offline_rl", *again)
    assert [done.returncode for done in then] == [0, 0], [done.stderr for done in then]
    assert "last checkpoint" in then[0].stdout and "last checkpoint" not in then[1].stdout
    assert steps_logged(tmp_path) == [200, 400]  # written once
    assert {p.name for p in the_run(tmp_path).iterdir()} == {p.name for p in the_run(whole).iterdir()}
    np.testing.assert_allclose(returns(tmp_path), returns(whole), rtol=1e-4)


SIGNALS = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
from command_line import run_main
from jdp.runs import preemption

def send(name):
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(0.01)

for name, body in {bodies!r}.items():
    pid = os.fork()
    if not pid:
        sys.stdout = sys.stderr = open(os.path.join({out!r}, name), "w", 1)
        os.dup2(sys.stderr.fileno(), 2)
        run_main(lambda: exec(body + "\\nprint('went on')"))
        os._exit(0)
    print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), sep=": ", flush=True)
"""
HELD = "with preemption.held():\n    "
CASES = {  # what happens, the exit status, what is printed
    "at once": ("send('SIGTERM')", 75, ["stopped by SIGTERM"]),
    "Ctrl-C": ("send('SIGINT')", 130, ["", "stopped"]),
    "held": (HELD + "send('SIGTERM'); print('held')", 75, ["held", "stopped by SIGTERM"]),
    "one notice twice": (
        HELD + "send('SIGTERM'); send('SIGTERM'); print('held')",
        75,
        ["held", "stopped by SIGTERM"],
    ),
    "a second one": (
        "preemption.REPEAT = 0\n" + HELD + "send('SIGTERM'); send('SIGTERM'); print('held')",
        75,
        ["stopped at once"],
    ),
    "Ctrl-C while held": (HELD + "send('SIGINT'); print('held')", 130, ["", "stopped"]),
    "nothing": (HELD + "pass", 0, ["went on"]),
}


def test_signals(tmp_path):
    bodies = {name: body for name, (body, _, _) in CASES.items()}
    code = SIGNALS.format(folder=str(EXPERIMENTS), bodies=bodies, out=str(tmp_path))
    done = run("", code=code)
    expected = {name: status for name, (_, status, _) in CASES.items()}
    assert done.stdout.splitlines() == [f"{name}: {status}" for name, status in expected.items()], done
    for name, (_, _, beginnings) in CASES.items():
        lines = (tmp_path / name).read_text().splitlines()
        assert len(lines) == len(beginnings), (name, lines)
        assert all(line.startswith(b) for line, b in zip(lines, beginnings, strict=True)), (name, lines)
