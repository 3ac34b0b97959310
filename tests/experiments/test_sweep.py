"""sweep.py as a user runs it: grids expanded, killed, continued, stopped, given mistakes; with scripts that
train nothing, once with a real one, and on a Slurm made of three small commands."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import EXPERIMENTS, TIMEOUT, check_mistakes, environment, run

sys.path.insert(0, str(EXPERIMENTS))
import grid as grids
import sweep

from jdp.errors import UserError

# A script that behaves as `--mode` says, notes every call, and waits for a gate.
FAKE = """
import json, os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
options = dict(zip((word.lstrip("-") for word in sys.argv[1::2]), sys.argv[2::2]))
mode, out = options["mode"], Path(options["out"])
run = out / "fake" / "data" / f"{mode}-{options.get('seed', 0)}"
run.mkdir(parents=True, exist_ok=True)
with open(out / "calls", "a") as file:
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    file.write(f"{run.name} {os.getpid()} {cores} {options['resume']} {gpu}\\n")
calls = sum(line.split()[0] == run.name for line in open(out / "calls"))
if (run / "scores.json").exists():
    print("finished  ", run)
    sys.exit()
(run / "config.json").write_text(json.dumps({"config": {"updates": 10}}))
print("run       ", run)
if mode == "wrong":
    print("a warning", file=sys.stderr)
    raise ValueError("no luck")
if mode == "mistake":
    print("error: --value is wrong", file=sys.stderr)
    sys.exit(2)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "thrice" and calls < 3:
    sys.exit(75)
if mode == "crash" and calls < 3:
    raise ValueError("a bad day")
while mode == "slow" and not (out / "gate").exists():
    time.sleep(0.05)
(run / "scores.json").write_text("{}")
"""


@pytest.fixture(autouse=True)
def gate(tmp_path):
    """Lets the scripts of a test that failed end by themselves."""
    yield
    (tmp_path / "gate").touch()


def write(folder: Path, text: str, name: str = "grid.toml") -> Path:
    (folder / "fake.py").write_text(FAKE)
    (folder / name).write_text(text)
    return folder / name


def grid(folder: Path, *modes: str, more: str = "") -> Path:
    return write(folder, f'script = "fake.py"\ncross.mode = {json.dumps(modes)}\n{more}')


def start(path: Path, *options: str, **extra: str) -> subprocess.Popen:
    """A sweep in the background, with a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(EXPERIMENTS / "sweep.py"), str(path), *options, "--out", str(path.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | extra,
        start_new_session=True,
    )


def calls(folder: Path) -> list[list[str]]:
    path = folder / "calls"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def cells(folder: Path, name: str = "grid") -> dict[str, dict]:
    found = json.loads((folder / "sweeps" / name / "cells.json").read_text())
    assert set(found) == {"name", "file", "cells"} and found["name"] == name
    keys = {"name", "command", "status", "run", "error"}
    assert all(set(cell) == keys for cell in found["cells"])
    return {cell["name"]: cell for cell in found["cells"]}


def wait(true: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(pid: str) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_grid_is_the_cross_of_its_options_and_parts_say_more_than_the_top(tmp_path):
    path = write(
        tmp_path,
        """
        fixed = { preset = "cpu", seeds = 2 }
        cross.env = ["a/b", "c"]
        [[part]]
        script = "offline_rl.py"
        fixed = { evaluation.every = 5, save_synthetic = false, settings.no-x = true, log = ["wandb", "b"] }
        cross = { settings.penalty = [0.5, 1], seed = [0, 2] }
        [[part]]
        script = "fake.py"
        fixed.preset = "paper"
        cross.env = ["c"]
        [[part]]
        script = "fake.py"
        fixed.preset = "smoke"
        cross.env = ["c", "c"]
        """,
    )
    found = grids.read(str(path), Path("results"))[1]
    options = [f"{env}-{penalty}-{seed}" for env in ("a-b", "c") for penalty in (0.5, 1) for seed in (0, 2)]
    assert list(found) == [*options, "c", "c-9"]  # what stands there twice is one cell
    words = found["a-b-0.5-2"]
    assert " ".join(words[2:]) == (
        "--preset cpu --seeds 2 --evaluation.every 5 --no-save-synthetic --settings.no-x --log wandb b "
        "--env a/b --settings.penalty 0.5 --seed 2 --out results --resume auto"
    )
    assert words[0] == "python" and Path(words[1]).resolve() == EXPERIMENTS / "offline_rl.py"
    assert " ".join(found["c"][2:]) == "--preset paper --seeds 2 --env c --out results --resume auto"


def test_seeds_of_different_cells_are_different_keys_and_episodes():
    # As the scripts make them: named keys of --seed; of each, one a seed for weights and updates.
    steps = np.asarray([2**31 - 1, *range(100)], np.uint32)
    keys, resets = [], []
    for seed in (0, 4, 8):
        named = jax.random.split(jax.random.key(seed), 4)
        for key in named:
            folded = jax.vmap(lambda i, k=key: jax.random.fold_in(k, i))(steps)
            keys += [jax.vmap(lambda k: jax.random.split(k, 4))(folded)]
        resets += np.random.SeedSequence(seed + 1_000_000).generate_state(400).tolist()
    bits = np.concatenate([np.asarray(jax.random.key_data(k)).reshape(-1, 2) for k in keys])
    assert len(np.unique(bits, axis=0)) == len(bits)
    assert len(set(resets)) == len(resets)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scrpt = 'fake.py'", "scrpt = 'fake.py' is not understood"),
        ("script = 'offline.py'", "no script 'offline.py'"),
        ("fixed = 3", "fixed = 3 is not understood"),
        ("script = 'fake.py'\n[cross]\nmode = 'ok'", "cross.mode is 'ok': it must be a list"),
        ("[cross]\nmode = ['a']", "no script ''"),
        ("part = [3]", "part must be a list of tables"),
        ("part = []", "part must be a list of tables"),
        ("[[part]]\nscript = 'fake.py'\npart = []", "part = [] is not understood"),
        ("script = ", "Invalid value"),
    ],
)
def test_a_mistake_in_a_grid_is_one_line(tmp_path, text, line):
    with pytest.raises(UserError) as found:
        grids.read(str(write(tmp_path, text)), tmp_path)
    assert line in str(found.value) and "grid.toml" in str(found.value)
    assert len(str(found.value).splitlines()) == 1


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


def test_every_cell_of_the_shipped_grids_is_a_command_that_its_script_takes():
    names, counts, asked = [path.stem for path in (EXPERIMENTS / "grids").glob("*.toml")], {}, {}
    for name in names:
        commands, preset = (
            grids.read(name, Path("results"))[1],
            "paper" if name.startswith("paper") else "cpu",
        )
        assert all(f"--preset {preset}" in " ".join(command) for command in commands.values()), name
        counts[name] = len(commands)
        # What follows the name of a robot or maze is no question of a command line.
        asked |= {re.sub(r"(--env \w+)\S*", r"\1", " ".join(c)): c for c in commands.values()}
    assert counts == {
        "example": 4,
        "readme-agents": 11,
        "readme-planning": 36,
        "readme-pgd": 2,
        "readme-world-models": 2,
        "paper-pgd": 18,
        "paper-agents": 99,
        "paper-planning": 126,
        "maze2d-planners": 12,
        "paper-maze2d-agents": 12,
    }
    code = f"import sys; sys.path.insert(0, {str(EXPERIMENTS)!r}); import grid; grid.check({asked})"
    done = run("sweep", code=code)  # of its own, where JAX has one device
    assert done.returncode == 0, done.stderr


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


def test_a_real_cell_ends_in_a_run_that_a_table_can_be_made_of(tmp_path):
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


def test_submitit_on_this_machine_runs_the_cells_of_a_grid(tmp_path):
    done = start(grid(tmp_path, "ok", "crash", "wrong"), "--cluster", "local", "--retries", "2")
    out, err = done.communicate(timeout=TIMEOUT)
    assert done.returncode == 1 and "failed: wrong: ValueError: no luck" in err, out + err
    found = {name: cell["status"] for name, cell in cells(tmp_path).items()}
    assert found == {"ok": "finished", "crash": "finished", "wrong": "failed"}


# Slurm's commands, as far as submitit uses them: jobs are processes.
SLURM = {
    "sbatch": """
cp "${@: -1}" $SLURM_FAKE/job.sh
for i in 0 1; do
  export SLURM_ARRAY_JOB_ID=100 SLURM_ARRAY_TASK_ID=$i SLURM_JOB_ID=100_$i
  setsid bash $SLURM_FAKE/job.sh &> /dev/null &
done
echo Submitted batch job 100
""",
    "srun": 'while [[ $1 != *python* ]]; do shift; done; echo $$ > $SLURM_FAKE/$SLURM_JOB_ID.pid; exec "$@"',
    "sacct": "echo 'JobID|State|NodeList'; for i in 0 1; do echo \"100_$i|$(cat $SLURM_FAKE/100_$i.state "
    '2> /dev/null || echo RUNNING)|here"; done',
    "scancel": "echo CANCELLED > $SLURM_FAKE/$1.state; pkill -TERM -P $(cat $SLURM_FAKE/$1.pid); exit 1",
}


def test_slurm_runs_an_array_whose_cells_checkpoint_when_the_sweep_is_stopped(tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in SLURM.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    extra = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_FAKE": str(tmp_path)}
    request = ["--request", "slurm_partition", "gpu", "timeout_min", "90", "gpus_per_node", "2"]
    options = ["--cluster", "slurm", *request, "--jobs", "3", "--retries", "0"]
    first = start(grid(tmp_path, "slow", "wrong"), *options, **extra)
    wait(lambda: sorted(call[0] for call in calls(tmp_path)) == ["slow-0", "wrong-0"])
    wait(lambda: cells(tmp_path)["wrong"]["status"] == "failed")
    text = (tmp_path / "job.sh").read_text()
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=2", "--array=0-1%2"):
        assert f"#SBATCH {line}" in text, line
    first.terminate()
    _, err = first.communicate(timeout=TIMEOUT)
    assert first.returncode == 75 and "failed: wrong: ValueError: no luck" in err
    assert {name: c["status"] for name, c in cells(tmp_path).items()} == {
        "slow": "waiting",
        "wrong": "failed",
    }
    assert len(calls(tmp_path)) == 2 and not any(alive(call[1]) for call in calls(tmp_path))
