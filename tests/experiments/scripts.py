"""What the tests of the scripts share: a clean environment, bad files, many mistakes in one process."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
from quick_xla import QUICK

import jdp
from jdp import evaluation, loops
from jdp.tasks import simulators

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TIMEOUT = 900  # seconds: a busy machine is no failure
# Runs a script and sends this very process a signal where the test says: at a call of a module's function.
KILLER = """
import importlib, os, signal, sys, threading
sys.path.insert(0, {folder!r})
import {script}
from command_line import run_main
importlib.import_module({target!r})
# Not what the import gives: `jdp.loops.train` is a function for those who ask its package.
target, name, call, delay = sys.modules[{target!r}], {name!r}, {call}, {delay}
original, calls = getattr(target, name), 0
def patched(*args, **kwargs):
    global calls
    calls += 1
    if calls == call:
        die = lambda: os.kill(os.getpid(), signal.{signal})
        threading.Timer(delay, die).start() if delay else die()
    return original(*args, **kwargs)
setattr(target, name, patched)
run_main({script}.main, spans_processes=True)
"""


def killer(script: str, target: str, name: str, call: int, delay: float, *, signal: str = "SIGKILL") -> str:
    """A program that runs `script` and dies at the `call`-th call of `name` of the module `target`, or
    `delay` s later."""
    return KILLER.format(
        folder=str(EXPERIMENTS),
        script=script,
        target=target,
        name=name,
        call=call,
        delay=delay,
        signal=signal,
    )


def environment(devices: int = 1) -> dict[str, str]:
    """One device, the suite's compilation cache, and no trace of the suite's own flags."""
    flags = f"{QUICK} --xla_force_host_platform_device_count={devices}"
    cache = jax.config.jax_compilation_cache_dir or ""
    return os.environ | {"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PLATFORMS": "cpu"}


def run(
    script: str, *arguments: str, code: str | None = None, devices: int = 1
) -> subprocess.CompletedProcess:
    """`experiments/<script>.py` with `arguments`, or the program `code` with them."""
    program = ["-c", code] if code else [str(EXPERIMENTS / f"{script}.py")]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        env=environment(devices),
        check=False,
        timeout=TIMEOUT,
    )


def check_plays_as_scored(path: Path, simulator: str) -> Any:
    """A run of online_rl.py or finetune.py, loaded, must return in its own episodes what it scored there."""
    found, scores = jdp.load_run(path), json.loads((path / "scores.json").read_text())
    seed, (states,) = found.config["seed"], found.states.values()
    shared = {"key": jax.random.key(seed), "seeds": found.config["seeds"], "episodes": scores["episodes"]}
    if simulator == "jax":
        task = simulators.simulator(found.config["env"])
        record = loops.score_together(found.method.policy, states, task, **shared)
    else:
        make = evaluation.environment_maker(found.spec)
        record = loops.play_together(found.method.policy, states, make, seed=seed + 1_000_000, **shared)
    np.testing.assert_allclose(record["returns"], scores["returns"], rtol=1e-6)
    return found


def run_two(script: str, *arguments: str, codes: tuple[str | None, str | None] = (None, None)) -> list[Any]:
    """As `run`, in two processes of one device each that make one run."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    hosts = [("--distributed", address, "--processes", "2", "--process", str(i)) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(run, script, *arguments, *hosts[i], code=codes[i]) for i in range(2)]
        return [process.result() for process in started]


def hdf5(path: Path, rows: int = 40, **changes: np.ndarray | None) -> Path:
    """A hopper-shaped D4RL file, with columns replaced or left out (None)."""
    rng = np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(rows, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(rows, 3)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.arange(rows) % 10 == 9,
    } | changes
    with h5py.File(path, "w") as file:
        for key, value in columns.items():
            if value is not None:
                file[key] = value
        file["metadata/env_id"] = "Hopper-v5"
    return path


def mistakes(
    script: str, lists: dict[str, list[str]], first: dict[str, str] | None = None
) -> dict[str, tuple[int, str]]:
    """`(exit status, standard error)` of the script under every list of arguments, all in one process.

    What stands in `first` under a name is executed before.
    """
    code = f"""
import io, json, sys, contextlib
sys.path.insert(0, {str(EXPERIMENTS)!r})
import {script}
from command_line import run_main
found = {{}}
first = {first or {}!r}
for name, argv in json.load(sys.stdin).items():
    exec(first.get(name, ""))
    sys.argv = ["{script}.py", *argv]
    err, status = io.StringIO(), 0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            run_main({script}.main)
        except SystemExit as end:
            status = end.code
    found[name] = (status, err.getvalue())
json.dump(found, sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(lists),
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=TIMEOUT,
    )
    return json.loads(done.stdout)


def check_mistakes(script: str, cases: dict[str, tuple[list[str], str]], always: list[str]) -> None:
    """Every case of `(arguments, expected word)` must end in status 2 and one line with the word in it."""
    found = mistakes(script, {name: [*always, *argv] for name, (argv, _) in cases.items()})
    for name, (status, error) in found.items():
        assert status == 2, (name, status, error)
        assert cases[name][1] in error, (name, error)
        assert "Traceback" not in error, name
        assert len(error.strip().splitlines()) == 1, (name, error)
