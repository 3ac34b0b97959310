"""Steps a second of methods that learn while they act, printed as JSON.

    python benchmarks/finetuning.py [--environments 256] [--steps 100] [--repeats 5] [--smoke]

- collecting in PointMaze in JAX, by random actions and by a policy of 2 x 256;
- collecting in Hopper in C with 16 environments by the same policy, beside the bare simulator: one
  `gymnasium.make("Hopper-v5")`, stepped alone;
- whole updates of PPO, SAC and the fine-tuners (not those of dreams) in PointMaze, with their rollouts.

All are timed in turns with the matrix product. Weights are not trained.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from common import gflops, interleaved, machine, matmul

import jdp
from jdp.evaluation import environment_maker, task_spec
from jdp.learning.acting import OffPolicyConfig, OnPolicyConfig
from jdp.learning.actors import mean_policy
from jdp.loops import online_learner, steps_of_update
from jdp.loops.collect import collect, start
from jdp.loops.controller import controller
from jdp.loops.host import HostEnvironments
from jdp.loops.off_policy import random_policy
from jdp.online.ppo import PPOAgentConfig, ppo
from jdp.online.sac import OnlineSACConfig
from jdp.policies import diffusion_policy as base_policy
from jdp.tasks import simulators
from jdp.types import Method, PyTree, Task

KEY = jax.random.key(0)
MAZE = simulators.simulator("PointMaze_Medium-v3")


def collecting(task: Task, method: Method | None, count: int, steps: int) -> Callable[[], Any]:
    """Rollouts of `count` environments; without a method by random actions."""
    policy = random_policy(task.spec.action_dim) if method is None else mean_policy(method.target)
    state = None if method is None else method.learner.init(KEY, ())
    acting = start(task, policy, KEY, count)
    run = jax.jit(partial(collect, task, policy, steps=steps))
    return lambda: run(KEY, state, acting)[1].reward


def on_host(count: int, steps: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Hopper in C: by a policy with `count` environments, and one alone without a policy."""
    spec = task_spec("Hopper-v5")
    method = ppo(PPOAgentConfig(hidden=(256, 256)), spec)
    envs, state = HostEnvironments(environment_maker(spec), count, 3, 0), method.learner.init(KEY, ())
    actor = controller(mean_policy(method.target))

    def play() -> None:
        for step in range(steps):
            _, decision = actor.act(KEY, step, state, (), envs.observation, envs.goal)
            envs.step(np.asarray(decision.action))

    bare, rng = gym.make("Hopper-v5"), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps * count, 3)).astype(np.float32)

    def alone() -> None:
        bare.reset(seed=0)
        for action in actions:
            _, _, ended, late, _ = bare.step(action)
            if ended or late:
                bare.reset()

    return play, alone


def updating(method: Method, task: Task, acting: Any, rows: PyTree = ()) -> Callable[[], Any]:
    """One whole update, steps included."""
    learner = online_learner(method, task, acting)
    state = jax.jit(learner.init)(KEY, rows)
    update = jax.jit(learner.update)
    return lambda: jax.tree.leaves(update(KEY, state, ())[0].learner)


def updates(smoke: bool) -> dict[str, tuple[Callable[[], Any], int]]:
    """Of every method: an update, and the steps of the task in it."""
    seen = simulators.observed_goal(MAZE)
    on = OnPolicyConfig(4, 4) if smoke else OnPolicyConfig(64, 32)
    off = OffPolicyConfig(capacity=10_000, warm_up=1_000)
    found: dict[str, tuple[Callable[[], Any], int]] = {}
    agents = {"PPO": PPOAgentConfig(acting=on, hidden=(256, 256)), "SAC": OnlineSACConfig(acting=off)}
    for name, config in agents.items():
        method = jdp.online.make(config, seen.spec)
        found[name] = updating(method, seen, config.acting), steps_of_update(config.acting)
    base = base_policy.DiffusionPolicyConfig(features=256)
    rows = jdp.data.prepared(jdp.policies.make(base, MAZE.spec).learner.draws, maze_data())
    state = jdp.policies.make(base, MAZE.spec).learner.init(KEY, jax.tree.map(jnp.asarray, rows))
    every = jdp.registry.entries("fine_tuner").values()
    # Those of dreams learn in no maze, and those of another base improve no such policy.
    for entry in (entry for entry in every if not entry.options.keys() & {"dreams", "base"}):
        presets = entry.presets(jdp.registry.task_of("pointmaze-medium")) if entry.presets else {}
        config = presets["smoke" if smoke else "cpu"].settings
        own = replace(base, formulation=entry.options.get("formulation", "edm"))  # of the same weights
        method = jdp.finetune.make(config, MAZE.spec, base=own)
        chunk = base.execute if entry.options.get("chunks") else 1
        task = simulators.chunked(MAZE, chunk)
        found[entry.title] = (
            updating(method, task, config.acting, state),
            steps_of_update(config.acting) * chunk,
        )
    return found


def maze_data() -> Any:
    return jdp.data.load("pointmaze-umaze", source="bundled")


def main() -> None:
    parser = argparse.ArgumentParser(description="steps a second of methods that learn while they act")
    parser.add_argument("--environments", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the plumbing")
    args = parser.parse_args()
    count, steps = (8, 5) if args.smoke else (args.environments, args.steps)
    seen = simulators.observed_goal(MAZE)
    method = ppo(PPOAgentConfig(hidden=(256, 256)), seen.spec)
    works: dict[str, tuple[Callable[[], Any], int]] = {
        "PointMaze in JAX, random actions": (collecting(seen, None, count, steps), count * steps),
        "PointMaze in JAX, a policy of 2 x 256": (collecting(seen, method, count, steps), count * steps),
    }
    play, alone = on_host(16, steps)
    works["Hopper in C, 16 environments, a policy of 2 x 256"] = play, 16 * steps
    works["Hopper in C, one bare simulator"] = alone, 16 * steps
    works |= {f"an update of {name} in PointMaze": work for name, work in updates(args.smoke).items()}
    times = interleaved({**{name: fn for name, (fn, _) in works.items()}, "matmul": matmul()}, args.repeats)
    found = [
        {
            "work": name,
            "steps": taken,
            "seconds": round(times[name], 4),
            "steps_per_second": round(taken / times[name]),
        }
        for name, (_, taken) in works.items()
    ]
    shown = {"machine": machine(), "matmul_gflops": round(gflops(times["matmul"]), 1)}
    print(json.dumps({**shown, "results": found}, indent=1))


if __name__ == "__main__":
    main()
