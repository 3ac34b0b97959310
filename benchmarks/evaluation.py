"""Steps a second of whole evaluations, and the simulator's share of their time, printed as JSON.

    python benchmarks/evaluation.py [--episodes 10 50] [--steps 1000] [--repeats 5]

An evaluation is `jdp.loops.play`: environments are made, reset and stepped until their episodes end, and the
policy decides for all of them in one call a step. Two kinds: TD3+BC in Hopper, where no episode ends before
`--steps`, and Diffuser's cpu preset in PointMaze by D4RL's rules, 300 steps. Weights are untrained.
`first_seconds` is the first evaluation, in which programs are compiled and all environments made; `env_step`
the share of the later ones inside Gymnasium's `step`. All are timed in turns with the matrix product.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
from agents import SPEC, dataset
from common import gflops, interleaved, machine, matmul
from planners import cpu_preset

import jdp
from jdp.agents import make as make_agent
from jdp.evaluation import GoalEnv, environment_maker, make_goal_env
from jdp.loops import play
from jdp.planners.diffuser import diffuser
from jdp.types import Policy, PyTree

KEY, MAZE = jax.random.key(0), "pointmaze-umaze"


class TimedSteps(gym.Wrapper):
    """Counts the steps of a task and the seconds that it takes for them."""

    steps, seconds = 0, 0.0  # of all tasks

    def step(self, action: Any) -> Any:
        began = time.perf_counter()
        found = self.env.step(action)
        TimedSteps.seconds += time.perf_counter() - began
        TimedSteps.steps += 1
        return found


def timed(make: Callable[[], GoalEnv]) -> GoalEnv:
    env = make()
    if not isinstance(env.env, TimedSteps):  # one that was kept is timed already
        env.env = TimedSteps(env.env)
    return env


class Evaluation:
    """An evaluation as a function to time, which remembers its steps and shares."""

    def __init__(self, policy: Policy, state: PyTree, make: Callable[[], GoalEnv], episodes: int):
        self.play = partial(play, policy, KEY, state, partial(timed, make), episodes=episodes)
        self.steps, self.seconds, self.shares = 0, [], []

    def __call__(self) -> None:
        TimedSteps.steps, TimedSteps.seconds = 0, 0.0
        began = time.perf_counter()
        self.play()
        self.seconds.append(time.perf_counter() - began)
        self.steps = TimedSteps.steps
        self.shares.append(TimedSteps.seconds / self.seconds[-1])

    def line(self, name: str, episodes: int, seconds: float) -> dict[str, Any]:
        return {
            "work": name,
            "episodes": episodes,
            "steps": self.steps,
            "seconds": round(seconds, 3),
            "steps_per_second": round(self.steps / seconds),
            "env_step": round(statistics.median(self.shares[1:]), 3),
            "first_seconds": round(self.seconds[0], 3),
        }


def hopper(steps: int, episodes: int) -> Evaluation:
    agent = make_agent("td3_bc", SPEC)
    rows = agent.learner.draws.view(dataset(1_000, next_actions=False))
    state = agent.learner.init(KEY, rows)
    make = partial(make_goal_env, "Hopper-v5", max_episode_steps=steps, terminate_when_unhealthy=False)
    return Evaluation(agent.policy, state, make, episodes)


def maze(episodes: int) -> Evaluation:
    data = jdp.data.load(MAZE, source="bundled")
    planner = diffuser(cpu_preset(MAZE), data.spec)
    rows = jax.tree.map(jnp.asarray, planner.learner.draws.prepare(data))
    return Evaluation(planner.policy, planner.learner.init(KEY, rows), environment_maker(data.spec), episodes)


def main() -> None:
    parser = argparse.ArgumentParser(description="steps a second of evaluations")
    parser.add_argument("--episodes", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--steps", type=int, default=1000, help="of an episode in Hopper")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    works = {("TD3+BC in Hopper-v5", n): hopper(args.steps, n) for n in args.episodes}
    works |= {(f"Diffuser in {MAZE}", n): maze(n) for n in args.episodes}
    named = {f"{name}, {n}": work for (name, n), work in works.items()}
    times = interleaved({**named, "matmul": matmul()}, args.repeats)
    shown = {"machine": machine(), "matmul_gflops": round(gflops(times["matmul"]), 1)}
    found = [work.line(name, n, times[f"{name}, {n}"]) for (name, n), work in works.items()]
    print(json.dumps({**shown, "results": found}, indent=1))


if __name__ == "__main__":
    main()
