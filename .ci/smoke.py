"""The smoke preset of every registered method, two at a time, with one compilation cache.

    python .ci/smoke.py OUT

Ends with status 1, and the output of those that failed, unless every method wrote its scores.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jdp import registry
from jdp.policies.points import PointConfig

ROOT, OUT = Path(__file__).parents[1], Path(sys.argv[1])
sys.path.append(str(ROOT / "tests"))
from quick_xla import QUICK  # noqa: E402

SHARED = ["--preset", "smoke", "--out", str(OUT)]
BUNDLED = ["--source", "bundled"]
HOPPER, MAZE = "hopper-medium", "pointmaze-umaze"
FLOW = ["--settings.formulation", "flow", "--settings.sampler", "euler"]


def commands() -> list[list[str]]:
    """Agents and policies on locomotion, planners in a maze, one planner on locomotion, the other jobs."""
    found = [["plan", "--planner", name, "--env", MAZE] for name in registry.entries("planner")]
    found += [["plan", "--planner", "diffuser", "--env", HOPPER]]
    for name, entry in registry.entries("policy").items():
        # Positions of bodies lie in no plane, so policies that see points are of mazes.
        home = MAZE if issubclass(entry.config, PointConfig) else HOPPER
        found += [["policies", "--policy", name, "--env", home]]
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
    """The run of `policy` on `env`, of a formulation where one is asked for."""
    for run in sorted(OUT.glob(f"policies/{env}/*")):
        config = json.loads((run / "config.json").read_text())["config"]
        own = config["settings"].get("formulation", "edm")
        if config["policy"] == policy and own == (formulation or "edm"):
            return run
    raise SystemExit(f"no run of {policy} {formulation or ''} on {env}")


def run(command: list[str]) -> subprocess.CompletedProcess:
    began = time.monotonic()
    script, *options = command
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / f"{script}.py"), *options, *SHARED],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": QUICK},
        check=False,
    )
    outcome, seconds = "FAILED" if done.returncode else "ok    ", time.monotonic() - began
    print(f"{outcome} {seconds:5.0f} s  {' '.join(command)}", flush=True)
    return done


def main() -> int:
    todo = commands()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(run, todo))
        if not any(d.returncode for d in done):
            todo += improved()
            done += list(pool.map(run, todo[len(done) :]))
    failed = [d for d in done if d.returncode]
    for d in failed:
        print(d.args, d.stdout[-3000:], d.stderr[-3000:], sep="\n")
    scores = len(list(OUT.glob("*/*/*/scores.json")))
    print(f"{len(todo)} runs, {scores} scores, {len(failed)} failed")
    return int(bool(failed) or scores < len(todo))


if __name__ == "__main__":
    sys.exit(main())
