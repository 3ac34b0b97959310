"""The smoke preset of every registered method, two at a time, with one compilation cache.

    python .ci/smoke.py OUT

Ends with status 1, and the output of those that failed, unless every method wrote its scores.
"""

import importlib
import json
import os
import runpy
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

ROOT, OUT = Path(__file__).parents[1], Path(sys.argv[1])
sys.path[:0] = [str(ROOT / "experiments"), str(ROOT / "tests")]
from quick_xla import QUICK  # noqa: E402

os.environ["XLA_FLAGS"] = QUICK

from jdp import registry  # noqa: E402
from jdp.policies.points import PointConfig  # noqa: E402

SHARED = ["--preset", "smoke", "--out", str(OUT)]
BUNDLED = ["--source", "bundled"]
HOPPER, MAZE = "hopper-medium", "pointmaze-umaze"
FLOW = ["--settings.formulation", "flow", "--settings.sampler", "euler"]


class Run(NamedTuple):
    """A script that was begun."""

    command: list[str]
    log: Path
    began: float


def commands() -> list[list[str]]:
    """Agents and policies on locomotion, planners in a maze, one planner on locomotion, the other jobs."""
    found = [["plan", "--planner", name, "--env", MAZE] for name in registry.entries("planner")]
    found += [["plan", "--planner", "diffuser", "--env", HOPPER]]
    for name, entry in registry.entries("policy").items():
        # Positions of bodies lie in no plane, so policies that see points are of mazes.
        home = MAZE if issubclass(entry.config, PointConfig) else HOPPER
        # Frames of bodies cost as much as the rest of such a run: one policy draws them for all.
        unseen = [] if home == MAZE or name == "diffusion_policy" else ["--evaluation.pictures", "0"]
        found += [["policies", "--policy", name, "--env", home, *unseen]]
    found += [["policies", "--policy", "diffusion_policy", "--env", MAZE, *more] for more in ([], FLOW)]
    found += [["offline_rl", "--agent", name, "--env", HOPPER] for name in registry.entries("agent")]
    models = [name for name in registry.entries("world_model") if name != "ensemble"]
    found += [["offline_rl", "--agent", "combo", "--world-model", name, "--env", HOPPER] for name in models]
    found = [[*command, *BUNDLED] for command in [["world_models", "--env", "walker2d-medium"], *found]]
    found += [["online_rl", "--agent", name, "--env", "Pendulum-v1"] for name in registry.entries("online")]
    found += [["online_rl", "--agent", "ppo", "--env", "Hopper-v5"]]
    found += [["align", "--method", name] for name in registry.entries("alignment")]
    found += [["align", "--model", "maze2d-umaze-diffuser", "--reward", "avoid"], ["align", "--benchmark"]]
    return [*found, ["collect_locomotion", "--env", "Hopper-v5", "--minari", "none"]]


def improved() -> list[list[str]]:
    """What fine-tunes the policies that `commands` have trained, each method one that it can improve."""
    found = []
    for name, entry in registry.entries("fine_tuner").items():
        # World models know no goals, so dreams are of locomotion.
        home = HOPPER if "dreams" in entry.options else MAZE
        base = trained(home, entry.options.get("base", "diffusion_policy"), entry.options.get("formulation"))
        found.append(["finetune", "--method", name, "--policy", str(base)])
    return found


def trained(env: str, policy: str, formulation: str | None) -> Path:
    """The run of `policy`, or planner, on `env`, of a formulation where one is asked for."""
    folder, kind = ("plan", "planner") if policy in registry.entries("planner") else ("policies", "policy")
    for run in sorted(OUT.glob(f"{folder}/{env}/*")):
        config = json.loads((run / "config.json").read_text())["config"]
        own = config["settings"].get("formulation", "edm")
        if config[kind] == policy and own == (formulation or "edm"):
            return run
    raise SystemExit(f"no run of {policy} {formulation or ''} on {env}")


def begin(command: list[str]) -> tuple[int, Run]:
    """Runs a script in a child that has its imports already, for those cost as much as its training."""
    log, began = OUT / f"{uuid.uuid4()}.log", time.monotonic()
    if (child := os.fork()) == 0:
        script, *options = command
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        path = str(ROOT / "experiments" / f"{script}.py")
        sys.argv = [path, *options, *SHARED]
        runpy.run_path(path, run_name="__main__")
        sys.exit()  # as a script ends, through no code of this one
    return child, Run(command, log, began)


def run_all(commands: list[list[str]]) -> list[Run]:
    """Runs all, two at a time; those that failed."""
    todo, running, failed = list(reversed(commands)), {}, []
    while todo or running:
        while todo and len(running) < 2:
            child, run = begin(todo.pop())
            running[child] = run
        child, status = os.wait()
        run = running.pop(child)
        failed += [run] if status else []
        seconds = time.monotonic() - run.began
        print(f"{'FAILED' if status else 'ok    '} {seconds:5.0f} s  {' '.join(run.command)}", flush=True)
    return failed


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    todo = commands()
    for script in sorted({command[0] for command in todo} | {"finetune"}):
        importlib.import_module(script)
    sys.stdout.flush()
    failed = run_all(todo)
    if not failed:
        failed = run_all(more := improved())
        todo += more
    for run in failed:
        print(*run.command, run.log.read_text()[-6000:], sep="\n")
    scores = len(list(OUT.glob("*/*/*/scores.json")))
    print(f"{len(todo)} runs, {scores} scores, {len(failed)} failed", flush=True)
    sys.exit(int(bool(failed) or scores < len(todo)))


if __name__ == "__main__":
    main()
