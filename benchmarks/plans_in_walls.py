"""How much of a trained planner's first plans lies inside walls, printed as JSON.

    python benchmarks/plans_in_walls.py RUN [--episodes 200] [--steps 20 64 200]

RUN is a run of `plan.py` in a maze that has a JAX version. For every number of sampling steps: the share of
the plans' length that lies in walls, and of plans with more than 2 % of theirs there, of each training seed.
Between rows of a plan the way is straight, so cut corners count.
"""

import argparse
import json
from dataclasses import replace

import jax
import numpy as np

import jdp
from jdp import registry
from jdp.tasks import simulators
from jdp.tasks.mazes import maze_of
from jdp.types import Policy, PyTree, Task

BETWEEN = np.linspace(0, 1, 20, endpoint=False)[:, None]  # places on the way from row to row
MUCH = 0.02  # of a plan's length


def first_plans(policy: Policy, task: Task, state: PyTree, episodes: int) -> np.ndarray:
    """Positions `[episodes, H, 2]` that are planned at the start of episodes; all see the same starts."""
    at_start, at_random = jax.random.split(jax.random.key(9))
    _, observation, goal = jax.vmap(task.reset)(jax.random.split(at_start, episodes))
    _, decision = jax.jit(policy.act)(at_random, state, policy.init(observation), observation, goal)
    return np.asarray(decision.plan.observation[..., :2])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="*", help="sampling steps (default: those of the run)")
    options = parser.parse_args()
    run = jdp.load_run(options.run)
    task, maze = simulators.simulator(run.written["config"]["env"]), maze_of(run.spec)
    assert maze is not None, "the run is of no maze"
    found = {}
    for steps in options.steps or [run.settings.sampling.steps]:
        settings = replace(run.settings, sampling=replace(run.settings.sampling, steps=steps))
        policy = registry.make("planner", settings, run.spec).policy
        shares = []
        for seed in range(run.written["config"]["seeds"]):
            plans = first_plans(policy, task, run.state(seed), options.episodes)
            here, there = plans[:, :-1, None], plans[:, 1:, None]
            shares.append(1 - maze.is_free(here + BETWEEN * (there - here)).mean((1, 2)))
        found[steps] = {
            "length_in_walls": [round(float(s.mean()), 4) for s in shares],
            "plans_in_walls": [round(float((s > MUCH).mean()), 3) for s in shares],
        }
    print(json.dumps({"run": run.command, "episodes": options.episodes, "steps": found}, indent=2))


if __name__ == "__main__":
    main()
