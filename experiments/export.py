"""A trained policy, planner or agent as one file that acts without jdp.

    python experiments/export.py results/policies/hopper-medium/<run>
    python experiments/export.py results/plan/pointmaze-large/<run> --seed 1 --to maze.jaxexport

RUN is a finished run of plan.py, policies.py, offline_rl.py or pgd_d4rl.py (of which --arm names the agent).
The file holds the weights of its last checkpoint, normalisers and all, as `jax.export` functions for cpu,
cuda and tpu, and a card with shapes, dataset, command and commit; experiments/act_exported.py plays with it.
"""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import gymnasium
import tyro
from command_line import parse, run_main

import jdp
from jdp.evaluation import make_goal_env
from jdp.loops.journal import Record
from jdp.runs import LoadedRun
from jdp.runs.export import export_policy


@dataclass(frozen=True)
class Config:
    """Export a run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    seed: int = 0
    """Which of the run's training seeds."""
    arm: str | None = None
    """Which of the agents of a run of pgd_d4rl.py: dataset, unguided, guided or world_model."""
    to: Path = Path("policy.jaxexport")
    """The file to write."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """What the file can run on; none of them need be here."""
    batch: int | None = None
    """How many environments it acts in at once; none: any number."""


def main() -> None:
    config = parse(Config, None, __doc__ or "")
    written = read(config.run)
    run = jdp.load_run(config.run)
    card = export_policy(
        config.to,
        run.method.policy,
        run.state(config.seed, config.arm),
        run.spec,
        platforms=config.platforms,
        batch=config.batch,
        facts=facts(config, written, run),
    )
    size = config.to.stat().st_size / 1e6
    print(f"policy     {card['method']}, seed {card['seed']}, of {config.run}")
    print(f"task       {card['task']}; dataset {card['dataset']}")
    print(f"act        {card['functions']['act']}; environments at once: {card['batch']}")
    print(f"for        {', '.join(card['platforms'])}")
    print(f"written to {config.to} ({size:.1f} MB); try: python experiments/act_exported.py {config.to}")


def read(run: Path) -> Record:
    """The run's config.json. Raises `UserError` unless `run` is the directory of a finished run."""
    if not (run / "config.json").is_file():
        raise jdp.UserError(f"{run} is no run directory: it has no config.json")
    if not (run / "scores.json").is_file():
        raise jdp.UserError(f"{run} is unfinished (it has no scores.json): let it run on with --resume {run}")
    return json.loads((run / "config.json").read_text())


def facts(config: Config, written: Record, run: LoadedRun) -> Record:
    """What the card says of the run."""
    scores = json.loads((config.run / "scores.json").read_text())
    found = scores.get("arms", {}).get(config.arm, scores)
    return {
        "method": run.name,
        "arm": config.arm,
        "task": run.spec.env_id,
        "make": gymnasium_arguments(run.spec),
        "env_spec": run.spec.env_spec,
        "dataset": written["dataset"],
        "sha256": written["sha256"],
        "seed": config.seed,
        "updates": scores.get("updates"),
        "score_name": scores.get("score_name"),
        "score": found["seeds"][config.seed] if "seeds" in found else None,
        "run": str(config.run),
        "command": written["command"],
        "commit": written["commit"],
        "exported_by": shlex.join(["python", *sys.argv]),
    }


def gymnasium_arguments(spec: jdp.types.Spec) -> Record | None:
    """Arguments of `gymnasium.make` for the task, where it is installed here and its id says all of it."""
    if spec.env_spec is not None:
        return None
    try:
        env = make_goal_env(spec)
    except jdp.UserError:
        return None
    made = env.env.spec
    env.close()
    if made is None:
        return None
    package = str(made.entry_point).partition(".")[0]  # whose import makes the task known to Gymnasium
    name = made.id if package == "gymnasium" else f"{package}:{made.id}"
    registered = gymnasium.spec(made.id).kwargs
    changed = {k: v for k, v in made.kwargs.items() if registered.get(k) != v}
    return {"id": name, "max_episode_steps": made.max_episode_steps, **changed}


if __name__ == "__main__":
    run_main(main)
