"""Hierarchical Diffuser improved online in PointMaze, by whose merit it learns from; printed as JSON.

    python benchmarks/two_levels.py [--seeds 5] [--updates 16] [--figure PNG] [--smoke]

A small planner is cloned from the bundled set, and then both its levels learn by PPO: with hierarchical
advantages, with flat ones, and in turns (`jdp.finetune.two_levels`). They learn from the task's reward less
`NEAR` for each metre and step that the goal is away: from the task's alone, 1 at the goal, no short
trial gained clearly. Scored are new episodes, the same for all and from first to last, drawn
without a floor of noise. Student's t over seeds. One line for each way as it is done goes to standard error.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, rounded
from jax import Array

import jdp
from jdp.evaluation.statistics import interval
from jdp.finetune.chain import ChainConfig
from jdp.finetune.two_levels import TwoLevelConfig, two_levels
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.plan_models import ModelConfig
from jdp.loops import Memory, score_together, steps_of_update, train, train_online
from jdp.networks import NetworkConfig
from jdp.planners import SamplingConfig
from jdp.planners.hierarchical import HierarchicalConfig
from jdp.plotting import learning
from jdp.tasks import simulators
from jdp.types import Policy, Stepped

MAZE = simulators.simulator("PointMaze_UMaze-v3")
NEAR = 0.02  # of a reward, for each metre and step that the goal is away
NET = ModelConfig(network=NetworkConfig("mixer", 16, 1))
COLD = SamplingConfig(sampler="euler", steps=4, warm_steps=0, sigma_min=0.1)  # the floor of the chains
BASE = HierarchicalConfig(
    horizon=128, jump=16, replan_every=16, high=NET, low=NET, sampling=COLD, low_sampling=COLD
)
CONFIG = TwoLevelConfig(
    acting=OnPolicyConfig(environments=128, steps=18),
    chain=ChainConfig(levels=4, learned=2),
    discount=0.99,
    clip=0.2,
    epochs=2,
    minibatches=6,
    learning_rate=1e-3,
    critic_hidden=(32, 32),
)
WAYS = {
    "hierarchical": CONFIG,
    "flat": replace(CONFIG, credit="flat"),
    "hierarchical, in turns": replace(CONFIG, turns=2),
}


def _near(key: Array, state: Any, action: Array) -> tuple[Any, Stepped]:
    state, found = MAZE.step(key, state, action)
    far = jnp.linalg.norm(state.position - state.goal)
    return state, found._replace(reward=found.reward - NEAR * far)


LEARNED_IN = MAZE._replace(step=_near)


def base(updates: int) -> tuple[HierarchicalConfig, Any]:
    """A planner of so many updates on the bundled set."""
    net = replace(NET, steps=updates)
    config = replace(BASE, high=net, low=net)
    learner = jdp.planners.make(config, MAZE.spec).learner
    data = jdp.data.load("pointmaze-umaze", source="bundled")
    rows = jax.tree.map(jnp.asarray, jdp.data.prepared(learner.draws, data))
    return config, train(learner, rows, key=jax.random.key(0), updates=updates, batch_size=64)


def quiet(config: HierarchicalConfig) -> Policy:
    """Decides segments as they are scored, for states of any way to learn."""
    chain = replace(CONFIG.chain, std_floor=1e-6)
    found = two_levels(replace(CONFIG, chain=chain), MAZE.spec, base=config).behaviour
    assert found is not None
    return found


def draw(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], before: float, path: str) -> None:
    """Success in per cent against steps of the task, `[parts]` and `[parts, seeds]` of each way."""
    shown = {name: (steps, 100 * found) for name, (steps, found) in curves.items()}
    start = dict.fromkeys(curves, 100 * before)
    title = "Hierarchical Diffuser improved online, PointMaze's U-maze"
    learning(shown, start=start, score="goals reached, %", title=title).savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="two levels of a planner, improved online")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of all of them")
    parser.add_argument("--updates", type=int, default=16)
    parser.add_argument("--every", type=int, default=4, help="updates between two scores")
    parser.add_argument("--base", type=int, default=1500, help="updates of the planner that is improved")
    parser.add_argument("--episodes", type=int, default=200, help="of a score, for each seed")
    parser.add_argument("--figure", help="also draw a PNG to this path")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the plumbing")
    args = parser.parse_args()
    if args.smoke:
        args.seeds, args.updates, args.base, args.every, args.episodes = 2, 2, 5, 1, 4
    config, state = base(args.base)
    task, inside = (simulators.chunked(t, BASE.jump) for t in (MAZE, LEARNED_IN))
    key = jax.random.key(args.seed)
    policy, scoring = quiet(config), jax.random.fold_in(key, 1 << 20)

    def evaluate(step: int, states: Any) -> Any:
        del step
        return score_together(policy, states, task, key=scoring, seeds=args.seeds, episodes=args.episodes)

    steps, lines, curves, before = steps_of_update(CONFIG.acting) * BASE.jump, [], {}, np.zeros(0)
    for name, way in WAYS.items():
        began, journal = time.process_time(), Memory()
        method = two_levels(way, MAZE.spec, base=config)
        if not before.size:  # what they begin with is alike
            first = jax.vmap(method.learner.init, (0, None))(jax.random.split(key, args.seeds), state)
            before = evaluate(0, first)["success"].mean(1)
        options = {"seeds": args.seeds, "base": state, "chunk": 1, "journal": journal}
        options |= {"evaluate": evaluate, "evaluate_every": args.every}
        train_online(method, inside, way.acting, key=key, updates=args.updates, **options)
        records = journal.records("online/evaluation")
        marks = steps * np.array([record["step"] for record in records])
        found = np.stack([record["success"].mean(1) for record in records])
        curves[name] = marks, found
        told = {f"{mark:,}": rounded(interval(part)) for mark, part in zip(marks, found, strict=True)}
        lines.append({
            "advantages": name,
            "success_at_steps": told,
            "mean_of_the_curve": rounded(interval(found.mean(0))),
            "last_by_seed": rounded(found[-1]),
            "last_less_before": rounded(interval(found[-1] - before)),  # of the same episodes
            "processor_seconds": round(time.process_time() - began, 1),
        })  # fmt: skip
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    first, *others = WAYS
    less = {
        name: {
            "mean_of_the_curve": rounded(interval(curves[first][1].mean(0) - curves[name][1].mean(0))),
            "last": rounded(interval(curves[first][1][-1] - curves[name][1][-1])),
        }
        for name in others
    }  # by seeds in pairs: they begin alike and are scored on the same episodes
    if args.figure:
        draw(curves, float(np.mean(before)), args.figure)
    settings = {"settings": vars(args), "learning": str(CONFIG), "machine": machine()}
    told = {"success_before": rounded(interval(before)), "results": lines, f"{first}, less": less}
    print(json.dumps({**told, **settings}, indent=1))


if __name__ == "__main__":
    main()
