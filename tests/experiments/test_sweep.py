"""sweep.py as a user runs it: grids expanded, killed, continued, stopped, given mistakes; with scripts that
train nothing, once with a real one, and on a Slurm made of six small commands."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from scripts import EXPERIMENTS, check_mistakes, environment, run

sys.path.insert(0, str(EXPERIMENTS))
import sweep_costs
import sweep_grid
import sweep_launch
import sweep_probe

from jdp.errors import UserError

# A script that behaves as `--mode` says, notes every call, and waits for a gate.
FAKE = """
import json, os, signal, sys, time
from pathlib import Path
options = dict(zip((word.lstrip("-") for word in sys.argv[1::2]), sys.argv[2::2]))
mode, out = options["mode"], Path(options["out"])
run = out / "fake" / "data" / f"{mode}-{options.get('seed', 0)}"
run.mkdir(parents=True, exist_ok=True)
with open(out / "calls", "a") as file:
    file.write(f"{run.name} {os.getpid()} {len(os.sched_getaffinity(0))} {options['resume']}\\n")
calls = sum(line.split()[0] == run.name for line in open(out / "calls"))
if (run / "scores.json").exists():
    print("finished  ", run)
    sys.exit()
(run / "config.json").write_text(json.dumps({"config": {"updates": 10}}))
print("run       ", run)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
if mode == "wrong":
    print("a warning", file=sys.stderr)
    raise ValueError("no luck")
if mode == "mistake":
    print("error: --value is wrong", file=sys.stderr)
    sys.exit(2)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "never" or calls < {"again": 8, "thrice": 3}.get(mode, 0):  # a step further at every call
    step = 1 if mode == "never" else calls
    (run / "metrics.jsonl").write_text(json.dumps({"phase": "diffuser", "step": step}) + "\\n")
    sys.exit(75)
(run / "metrics.jsonl").write_text(json.dumps({"phase": "agent", "step": 5}) + "\\n")
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
    return write(folder, f'script = "fake.py"\n{more}\n[cross]\nmode = {json.dumps(modes)}\n')


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
    keys = {"name", "command", "status", "run", "error", "seconds"}
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


def test_a_grid_is_the_cross_without_its_exclusions_with_extra_cells_in_packs_of_seeds(tmp_path):
    path = write(
        tmp_path,
        """
        seeds = 5
        pack = 2
        first_seed = 10
        [fixed]
        preset = "cpu"
        [[part]]
        script = "offline_rl.py"
        cross.agent = ["bc", "iql"]
        cross.setting = [{ updates = 10, evaluation.every = 5 }, { updates = 20 }]
        exclude = [{ agent = ["bc", "cql"], updates = 20 }]
        cell = [{ agent = "cql", log = ["wandb", "b"], save_synthetic = false, settings.no-x = true }]
        [[part]]
        script = "fake.py"
        fixed.preset = "paper"
        """,
    )
    found = sweep_grid.read(path)
    assert [cell.name for cell in found[:3]] == [
        f"bc-updates=10-every=5-{s}" for s in ("seeds10-11", "seeds12-13", "seed14")
    ]
    settings = {cell.name.rpartition("-seed")[0] for cell in found}
    assert settings == {
        "bc-updates=10-every=5",
        "iql-updates=10-every=5",
        "iql-updates=20",
        "cql-wandb+b-save_synthetic=false-no_x=true",
        "fake",
    }
    assert len(found) == 3 * 5
    words = found[9].command(Path("results"))
    assert " ".join(words[2:]) == (
        "--preset cpu --agent cql --log wandb b --no-save-synthetic --settings.no-x "
        "--seed 10 --seeds 2 --out results --resume auto"
    )
    assert words[:1] == ["python"] and words[1].endswith("experiments/offline_rl.py")
    assert dict(found[-1].options) == {"preset": "paper", "seed": 14, "seeds": 1}


def test_seeds_of_different_packs_are_different_keys_and_episodes():
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
        ("scrpt = 'fake.py'", "unknown key scrpt: did you mean script?"),
        ("script = 'offline.py'", "no script offline.py: did you mean offline_rl.py?"),
        ("seeds = 0", "seeds is 0"),
        ("seeds = 'three'", "must be a int"),
        ("script = 'fake.py'", "no cells"),
        ("script = 'fake.py'\n[cross]\nmode = 'ok'", "cross.mode is 'ok': it must be a list"),
        ("script = 'fake.py'\n[fixed]\nseed = 3", "give `seeds`, `pack` and `first_seed` instead"),
        ("script = 'fake.py'\n[cross]\nmode = ['a', 'a']", "a stands there twice"),
        ("script = 'fake.py'\n[[exclude]]\nmode = 'b'\n[cross]\nmode = ['a']", "matches no cell"),
        ("[cross]\nmode = ['a']", "names no script"),
        ("cell = 3", "cell is 3"),
        ("script = ", "Invalid value"),
    ],
)
def test_a_mistake_in_a_grid_is_one_line(tmp_path, text, line):
    with pytest.raises(UserError, match=line.replace("?", r"\?").replace("(", r"\(")) as found:
        sweep_grid.read(write(tmp_path, text))
    assert len(str(found.value).splitlines()) == 1 and "grid.toml" in str(found.value)


def test_a_mistake_on_the_command_line_or_in_an_option_is_one_line(tmp_path):
    option = write(tmp_path, "script = 'offline_rl.py'\n[fixed]\nagent = 'bc'\nupdate = 5", "a.toml")
    damaged = tmp_path / "sweeps" / "d" / "cells.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    other, path = tmp_path / "other.toml", tmp_path / "sweeps" / "t" / "cells.json"
    other.touch()
    path.parent.mkdir()
    path.write_text(json.dumps({"name": "t", "file": str(other), "cells": []}))
    cases = {
        "grid": (["exmple"], "did you mean example?"),
        "unknown": ([str(option)], "unknown option update: did you mean updates?"),
        "jobs": (["--jobs", "0"], "--jobs is 0"),
        "slurm": ([str(grid(tmp_path, "ok")), "--slurm"], "no srun on this machine"),
        "of another grid": ([str(write(tmp_path, "script = 'fake.py'\nfixed.a = 1", "t.toml"))], str(other)),
        "partition": (["example", "--partition", "gpu"], "add --slurm"),
        "damaged": ([str(write(tmp_path, "script = 'fake.py'\nfixed.a = 1", "d.toml"))], "move"),
    }
    check_mistakes("sweep", cases, ["--out", str(tmp_path)])


def test_what_a_script_says_against_its_options_is_one_line():
    script = EXPERIMENTS / "offline_rl.py"
    asked = {
        "value": (script, ["updates"], ["--updates", "many"]),
        "agent": (script, ["agent"], ["--agent", "bcc"]),
        "preset": (script, ["preset"], ["--preset", "big"]),
        "other": (EXPERIMENTS / "tables.py", [], []),
    }
    done = subprocess.run(
        [sys.executable, str(EXPERIMENTS / "sweep_probe.py")],
        input=json.dumps(asked, default=str),
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    found = {name: answer["error"] for name, answer in json.loads(done.stdout)["cells"].items()}
    assert found["value"] == "Error parsing --updates: invalid literal for int() with base 10: 'many'"
    assert found["agent"].startswith("--agent bcc: did you mean bc?")
    assert "unknown preset 'big'" in found["preset"]
    assert found["other"] == "tables.py trains nothing: it cannot be swept"


def test_every_cell_of_the_shipped_grids_is_a_command_that_its_script_takes():
    files = [path for path in sorted(sweep_grid.GRIDS.glob("*.toml")) if path.stem != "costs"]
    assert {path.stem for path in files} >= {
        *("example", "readme-agents", "readme-planning", "readme-pgd"),
        *("paper-pgd", "paper-agents", "paper-planning"),
    }
    found = {path.stem: sweep_grid.read(path) for path in files}
    named = [
        sweep_grid.Cell(f"{stem}/{cell.name}", cell.script, cell.options)
        for stem, group in found.items()
        for cell in group
    ]
    device, configs = sweep_probe.probe(named)
    assert set(configs) == {cell.name for cell in named}
    assert device["platform"] == "cpu"
    for name, config in configs.items():
        assert config["preset"] == ("paper" if name.startswith("paper") else "cpu"), name
    # The README's tables can be estimated before anything has run.
    costs = sweep_costs.estimates(named, configs, device, Path("nowhere"))
    unknown = [n for n, cost in costs.items() if cost.work is None and n.startswith(("readme", "example"))]
    assert all(name.startswith("readme-world-models") for name in unknown)


def test_what_fails_is_told_and_stops_nothing_and_what_asks_for_it_is_run_again(tmp_path):
    path = grid(tmp_path, "wrong", "mistake", "killed", "again", "ok", "never", more="seeds = 1")
    done = start(path, "--jobs", "2")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 1
    found = cells(tmp_path)
    assert {name.removesuffix("-seed0"): (c["status"], c["error"]) for name, c in found.items()} == {
        "wrong": ("failed", "ValueError: no luck"),
        "mistake": ("failed", "--value is wrong"),
        "killed": ("failed", "killed by SIGKILL (out of memory?)"),
        "again": ("finished", None),
        "ok": ("finished", None),
        "never": ("failed", "asked 5 times to be run again without having gone on"),
    }
    assert found["ok-seed0"]["run"] == str(tmp_path / "fake" / "data" / "ok-0")
    assert "2 of 6 cells finished, 4 failed" in out
    assert f"{tmp_path}/sweeps/grid/logs/wrong-seed0.err" in err and "Traceback" not in err
    count = len(os.sched_getaffinity(0))
    assert all(call[2] == str(max(1, count // 2)) and call[3] == "auto" for call in calls(tmp_path))

    # Once more: what is finished is not, what failed is; a cell with another command is a new one.
    (tmp_path / "calls").unlink()
    grid(tmp_path, "wrong", "ok", "again", more="seeds = 1\nfirst_seed = 0\n[[cell]]\nmode='ok'\nnew=1")
    done = start(path)
    done.communicate(timeout=60)
    assert done.returncode == 1
    assert [call[0] for call in calls(tmp_path)] == ["wrong-0", "ok-0"]
    assert cells(tmp_path)["ok-new=1-seed0"]["run"] == found["ok-seed0"]["run"]


def test_a_killed_sweep_goes_on_and_a_second_one_is_refused(tmp_path):
    path = grid(tmp_path, "ok", "slow", more="seeds = 2\npack = 1")
    first = start(path, "--jobs", "2")
    wait(lambda: len([call for call in calls(tmp_path) if call[0].startswith("slow")]) == 2)
    second = start(path)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2 and len(err.strip().splitlines()) == 1
    assert "another process runs the sweep" in err
    os.killpg(first.pid, signal.SIGKILL)  # the sweep, submitit's processes and the scripts
    first.wait()
    wait(lambda: not any(alive(call[1]) for call in calls(tmp_path)))
    assert {c["status"] for c in cells(tmp_path).values()} == {"finished", "running"}
    (tmp_path / "gate").touch()
    third = start(path, "--jobs", "2")
    out, err = third.communicate(timeout=60)
    assert third.returncode == 0, err
    assert "to do      2 of 4 cells" in out
    assert {c["status"] for c in cells(tmp_path).values()} == {"finished"}
    assert sorted(call[0] for call in calls(tmp_path)) == sorted(["ok-0", "ok-1", *2 * ["slow-0", "slow-1"]])


def test_the_script_of_a_sweep_that_alone_was_killed_is_waited_for(tmp_path):
    path = grid(tmp_path, "slow", more="seeds = 1")
    first = start(path)
    wait(lambda: calls(tmp_path))
    first.kill()
    first.wait()
    (script,) = calls(tmp_path)
    second = start(path)
    wait(lambda: (tmp_path / "sweeps" / "grid" / "submitit").exists() and "running" in str(cells(tmp_path)))
    time.sleep(2.0)
    assert alive(script[1]) and len(calls(tmp_path)) == 1
    (tmp_path / "gate").touch()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert len(calls(tmp_path)) == 2  # the second finds the run finished


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_sweep_that_is_told_to_stop_stops_its_cells_and_goes_on_later(tmp_path, number, status):
    path = grid(tmp_path, "slow", "ok", more="seeds = 1")
    first = start(path, "--jobs", "1")
    wait(lambda: calls(tmp_path))
    time.sleep(0.5)
    os.killpg(first.pid, number)  # as a terminal or a scheduler does
    _, err = first.communicate(timeout=60)
    assert first.returncode == status and "the same command goes on" in err
    assert not alive(calls(tmp_path)[0][1])
    found = cells(tmp_path)
    assert [c["status"] for c in found.values()] == ["waiting", "waiting"]
    if number == signal.SIGTERM:
        (tmp_path / "gate").touch()
        second = start(path)
        second.communicate(timeout=60)
        assert second.returncode == 0


def test_a_dry_run_starts_nothing_and_says_what_its_estimates_rest_on(tmp_path):
    past = tmp_path / "offline_rl" / "hopper-medium" / "20260101-000000-abc"
    past.mkdir(parents=True)
    config = {"agent": "bc", "env": "hopper-medium", "preset": "cpu", "updates": 100, "seeds": 2}
    facts = {"config": config, "devices": ["cpu: cpu"], "cores": 4}
    (past / "config.json").write_text(json.dumps(facts))
    (past / "scores.json").write_text(json.dumps({"minutes": {"agent": 3.0}}))
    lines = [
        {"phase": "agent", "step": 100, "seconds": 200.0},
        {"phase": "agent/evaluation", "step": 50, "seconds": 40.0},
        {"phase": "agent/evaluation", "step": 100, "seconds": 60.0},
    ]
    (past / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = write(
        tmp_path,
        """
        script = "offline_rl.py"
        seeds = 4
        fixed = { preset = "cpu", env = "hopper-medium", updates = 50 }
        [cross]
        agent = ["bc", "iql"]
        """,
    )
    # 5 minutes on 4 cores for 100 updates of 2 seeds: as much for 50 of 4.
    cell = sweep_grid.read(path)[0]
    wanted = config | {"updates": 50, "seeds": 4}
    device = {"platform": "cpu", "kind": "cpu"}
    cost = sweep_costs.estimates([cell], {cell.name: wanted}, device, tmp_path)[cell.name]
    assert cost == (pytest.approx(20.0), str(past))
    assert cost.minutes(2, 0.5) == pytest.approx(10.5)
    gpu = sweep_costs.estimates([cell], {cell.name: wanted}, {"platform": "gpu", "kind": None}, tmp_path)
    assert gpu[cell.name].work is None

    done = start(path, "--dry-run", "--jobs", "1")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    assert str(past) in out and "costs.toml" in out and "--agent bc" in out and "core-hours" in out
    assert "1 from finished runs, 1 from experiments/grids/costs.toml" in out
    assert not (tmp_path / "sweeps").exists() and not (tmp_path / "calls").exists()


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    cpu = {"platform": "cpu", "count": 1}
    assert [slot.cores for slot in sweep_launch.slots(None, cpu)] == [(0, 1), (2, 3, 4)]
    assert [slot.cores for slot in sweep_launch.slots(2, cpu)] == [(0, 1), (2, 3, 4)]
    assert len(sweep_launch.slots(7, cpu)) == 7
    assert all(slot.cores for slot in sweep_launch.slots(7, cpu))
    gpu = {"platform": "gpu", "count": 4}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [slot.gpus for slot in sweep_launch.slots(None, gpu)] == [("4",), ("5",), ("6",), ("7",)]
    assert [slot.gpus for slot in sweep_launch.slots(2, gpu)] == [("4", "5"), ("6", "7")]
    assert sweep_launch.environment(sweep_launch.slots(8, gpu)[0]) == {
        "CUDA_VISIBLE_DEVICES": "4",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    assert len(sweep_launch.slots(None, {"platform": "tpu", "count": 4})) == 1


def test_two_real_cells_end_in_runs_that_a_table_can_be_made_of(tmp_path):
    path = write(
        tmp_path,
        """
        script = "offline_rl.py"
        seeds = 2
        pack = 1
        [fixed]
        env = "hopper-medium"
        source = "bundled"
        preset = "cpu"
        agent = "bc"
        updates = 20
        settings.hidden = [8]
        evaluation = { episodes = 1, every = 20 }
        """,
    )
    done = run("sweep", str(path), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    runs = [Path(cell["run"]) for cell in cells(tmp_path).values()]
    assert sorted(runs) == sorted(tmp_path.glob("offline_rl/hopper-medium/*")) and len(runs) == 2
    assert [json.loads((run / "config.json").read_text())["config"]["seed"] for run in runs] == [0, 1]
    assert len({json.dumps(json.loads((run / "scores.json").read_text())["returns"]) for run in runs}) == 2


# Slurm's commands, as far as submitit uses them: jobs are processes, their states files in $SLURM_FAKE.
SLURM = """#!{python}
import os, re, signal, subprocess, sys
from pathlib import Path
name, folder = Path(sys.argv[0]).name, Path(os.environ["SLURM_FAKE"])
def launch(job):
    script, index = folder / f"{{job.split('_')[0]}}.sh", job.partition("_")[2]
    extra = {{"SLURM_ARRAY_JOB_ID": job.split("_")[0], "SLURM_ARRAY_TASK_ID": index}} if index else {{}}
    state = folder / job  # what ends after it was put into the queue again changes nothing
    old = int(state.read_text().split()[1]) if state.exists() else 0
    state.write_text(f"RUNNING {{old + 1}}")
    ends = f"grep -q 'RUNNING {{old + 1}}$' {{state}} && echo $s {{old + 1}} > {{state}}"
    program = f"bash {{script}} && s=COMPLETED || s=FAILED; {{ends}}"
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    env = os.environ | extra | {{"SLURM_JOB_ID": job, "SLURM_NTASKS": "1"}}
    subprocess.Popen(["bash", "-c", program], start_new_session=True, env=env, **quiet)
if name == "sbatch":
    text = Path(sys.argv[-1]).read_text()
    job = str(100 + len(list(folder.glob("*.sh"))))
    (folder / f"{{job}}.sh").write_text(text)
    array = re.search(r"--array=0-(\\d+)", text)
    for one in [f"{{job}}_{{i}}" for i in range(int(array[1]) + 1)] if array else [job]:
        launch(one)
    print(f"Submitted batch job {{job}}")
elif name == "srun":
    words = sys.argv[1:]
    at = next(i for i, word in enumerate(words) if "python" in word)
    (folder / f"{{os.environ['SLURM_JOB_ID']}}.pid").write_text(str(os.getpid()))
    os.execv(words[at], words[at:])
elif name == "sacct":
    print("JobID|State|NodeList")
    for path in folder.glob("1*"):
        if not path.suffix:
            print(f"{{path.name}}|{{path.read_text().split()[0]}}|here")
elif name == "scontrol":
    launch(sys.argv[2])
"""


def test_slurm_runs_an_array_requeues_at_the_time_limit_and_keeps_its_jobs_when_the_sweep_ends(tmp_path):
    state, commands = tmp_path / "slurm", tmp_path / "bin"
    state.mkdir(), commands.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel", "scontrol"):
        (commands / name).write_text(SLURM.format(python=sys.executable))
        (commands / name).chmod(0o755)
    extra = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_FAKE": str(state)}
    path = grid(tmp_path, "slow", "thrice", "wrong", more="seeds = 1")
    options = ["--slurm", "--partition", "gpu", "--minutes", "90", "--gpus", "2", "--jobs", "3"]
    first = start(path, *options, **extra)
    wait(lambda: sorted({call[0] for call in calls(tmp_path)}) == ["slow-0", "thrice-0", "wrong-0"])
    text = (state / "100.sh").read_text()
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=2", "--array=0-2%3", "--signal=USR2@120"):
        assert f"#SBATCH {line}" in text, line
    os.kill(int((state / "100_0.pid").read_text()), signal.SIGUSR2)  # the time is almost over
    wait(lambda: [call[0] for call in calls(tmp_path)].count("slow-0") == 2)
    wait(lambda: cells(tmp_path)["thrice-seed0"]["status"] == "finished")  # submitted twice more
    os.kill(first.pid, signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130 and "its jobs go on in Slurm" in err
    assert cells(tmp_path)["slow-seed0"]["status"] == "running"
    submitted = len(list(state.glob("*.sh")))
    second = start(path, *options, **extra)
    wait(lambda: len(list(state.glob("*.sh"))) == submitted + 1)  # the cell that failed
    (tmp_path / "gate").touch()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1 and "ValueError: no luck" in err
    assert [call[0] for call in calls(tmp_path)].count("slow-0") == 2
    found = {name: cell["status"] for name, cell in cells(tmp_path).items()}
    assert found == {"slow-seed0": "finished", "thrice-seed0": "finished", "wrong-seed0": "failed"}
