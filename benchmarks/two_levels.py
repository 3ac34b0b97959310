"""Hierarchical Diffuser improved online in PointMaze, by whose merit it learns from; printed as JSON.

    python benchmarks/two_levels.py [--seeds 5] [--updates 15] [--smoke]

A small planner is cloned from the bundled set, and then both its levels learn by PPO: with hierarchical
advantages, with flat ones, and in turns (`jdp.finetune.two_levels`). Success is that of the episodes that
ended in the rollouts themselves, by thirds of the training; Student's t over seeds. One line for each way as
it is done goes to standard error.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import machine

import jdp
from jdp.evaluation.statistics import difference, interval
from jdp.finetune.chain import ChainConfig
from jdp.finetune.two_levels import TwoLevelConfig, two_levels
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.plan_models import ModelConfig
from jdp.loops import Memory, train, train_online
from jdp.networks import NetworkConfig
from jdp.planners import SamplingConfig
from jdp.planners.hierarchical import HierarchicalConfig
from jdp.tasks import simulators

MAZE = simulators.simulator("PointMaze_UMaze-v3")
NET = ModelConfig(network=NetworkConfig("mixer", 16, 1))
COLD = SamplingConfig(sampler="euler", steps=4, warm_steps=0)
BASE = HierarchicalConfig(
    horizon=128, jump=16, replan_every=16, high=NET, low=NET, sampling=COLD, low_sampling=COLD
)
CONFIG = TwoLevelConfig(
    acting=OnPolicyConfig(environments=32, steps=18),
    chain=ChainConfig(levels=4, learned=2),
    clip=0.2,
    epochs=4,
    minibatches=2,
    learning_rate=1e-3,
    critic_hidden=(32, 32),
)
WAYS = {
    "hierarchical": CONFIG,
    "flat": replace(CONFIG, credit="flat"),
    "hierarchical, in turns": replace(CONFIG, turns=2),
}


def base(updates: int) -> tuple[HierarchicalConfig, Any]:
    """A planner of so many updates on the bundled set."""
    net = replace(NET, steps=updates)
    config = replace(BASE, high=net, low=net)
    learner = jdp.planners.make(config, MAZE.spec).learner
    data = jdp.data.load("pointmaze-umaze", source="bundled")
    rows = jax.tree.map(jnp.asarray, jdp.data.prepared(learner.draws, data))
    return config, train(learner, rows, key=jax.random.key(0), updates=updates, batch_size=64)


def thirds(records: Any) -> np.ndarray:
    """`[3, seeds]`, the share of episodes that ended in success."""
    found = [np.stack([np.asarray(r[name]) for r in records]) for name in ("successes", "episodes")]
    parts = [[x.sum(0) for x in np.array_split(field, 3)] for field in found]
    return np.stack(parts[0]) / np.maximum(np.stack(parts[1]), 1)


def rounded(values: Any) -> list[float]:
    return [round(float(x), 3) for x in values]


def main() -> None:
    parser = argparse.ArgumentParser(description="two levels of a planner, improved online")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=15)
    parser.add_argument("--base", type=int, default=400, help="updates of the planner that is improved")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for the plumbing")
    args = parser.parse_args()
    if args.smoke:
        args.seeds, args.updates, args.base = 2, 3, 5
    config, state = base(args.base)
    task, lines, last = simulators.chunked(MAZE, BASE.jump), [], {}
    for name, way in WAYS.items():
        began, journal = time.process_time(), Memory()
        method = two_levels(way, MAZE.spec, base=config)
        chunk = max(args.updates // 3, 1)  # a record of each
        options = {"seeds": args.seeds, "base": state, "chunk": chunk, "journal": journal}
        train_online(method, task, way.acting, key=jax.random.key(1), updates=args.updates, **options)
        found = thirds(journal.records("online"))
        last[name], shown = found[2], [rounded(interval(part)) for part in found]
        seconds = round(time.process_time() - began, 1)
        lines.append({"advantages": name, "success_by_thirds": shown, "processor_seconds": seconds})
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    less = {name: rounded(difference(last["hierarchical"], last[name])) for name in list(last)[1:]}
    steps = args.updates * CONFIG.acting.environments * CONFIG.acting.steps * BASE.jump
    settings = {"settings": vars(args), "steps_of_a_seed": steps, "machine": machine()}
    print(json.dumps({"results": lines, "hierarchical_less": less, **settings}, indent=1))


if __name__ == "__main__":
    main()
