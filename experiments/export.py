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
from typing import Annotated, Any, Literal

import gymnasium
import jax
import tyro
from common import run_main

import jdp
from jdp.evaluation import make_goal_env
from jdp.runs.export import export_policy, mean_policy
from jdp.types import Policy, PyTree


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
    config = tyro.cli(Config, description=__doc__)
    written = read(config.run)
    policy, states, spec = load(config, written["config"])
    seeds = written["config"]["seeds"]
    if not 0 <= config.seed < seeds:
        raise jdp.UserError(f"--seed {config.seed}: {config.run} has the training seeds 0 to {seeds - 1}")
    card = export_policy(
        config.to,
        policy,
        jax.tree.map(lambda x: x[config.seed], states),
        spec,
        platforms=config.platforms,
        batch=config.batch,
        facts=facts(config, written),
    )
    size = config.to.stat().st_size / 1e6
    print(f"policy     {card['method']}, seed {card['seed']}, of {config.run}")
    print(f"task       {card['task']}; dataset {card['dataset']}")
    print(f"act        {card['functions']['act']}; environments at once: {card['batch']}")
    print(f"for        {', '.join(card['platforms'])}")
    print(f"written to {config.to} ({size:.1f} MB); try: python experiments/act_exported.py {config.to}")


def read(run: Path) -> dict[str, Any]:
    """The run's config.json. Raises `UserError` unless `run` is the directory of a finished run."""
    if not (run / "config.json").is_file():
        raise jdp.UserError(f"{run} is no run directory: it has no config.json")
    if not (run / "scores.json").is_file():
        raise jdp.UserError(f"{run} is unfinished (it has no scores.json): let it run on with --resume {run}")
    return json.loads((run / "config.json").read_text())


def load(config: Config, settings: dict[str, Any]) -> tuple[Policy, PyTree, jdp.types.Spec]:
    """The run's policy, the states of all its seeds, and its task."""
    if "agent" not in settings:
        if config.arm is not None:
            raise jdp.UserError(f"--arm {config.arm}: {config.run} has no arms, it is no run of pgd_d4rl.py")
        controller = jdp.load_controller(config.run)
        return controller.policy, controller.states, controller.spec
    run = jdp.load_run(config.run)
    arm = config.arm or (next(iter(run.agent_states)) if len(run.agent_states) == 1 else None)
    if arm is None or arm not in run.agent_states:
        raise jdp.UserError(f"--arm {arm or 'is missing'}: choose one of {', '.join(run.agent_states)}")
    return mean_policy(run.agent), run.agent_states[arm], run.spec


def facts(config: Config, written: dict[str, Any]) -> dict[str, Any]:
    """What the card says of the run."""
    settings, spec = written["config"], written["spec"]
    scores = json.loads((config.run / "scores.json").read_text())
    found = scores.get("arms", {}).get(config.arm, scores)
    return {
        "method": settings.get("planner") or settings.get("policy") or settings["agent"],
        "arm": config.arm,
        "task": spec["env_id"],
        "make": gymnasium_arguments(spec),
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


def gymnasium_arguments(spec: dict[str, Any]) -> dict[str, Any] | None:
    """Arguments of `gymnasium.make` for the task, where it is installed here."""
    try:
        env = make_goal_env(spec["env_id"], max_episode_steps=spec["max_episode_steps"])
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
