"""What the tests of sweep.py share: a script that trains nothing, and grids of it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scripts import EXPERIMENTS, environment

sys.path.insert(0, str(EXPERIMENTS))


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
