"""Decisions per second of exported policies against the policies they were made of, printed as JSON.

    python benchmarks/exported.py [--batches 1 16] [--repeats 5]

Of hopper's shapes (11 observations, 3 actions), float32, with untrained weights: times do not depend on them.
A decision is one call of `act` that plans or samples, in B environments at once, its action waited for as a
simulator does; both are timed in turns. In the file the weights are constants, which XLA folds; in the
process they are arguments. Seconds to the first action hold reading the file and compiling, without a cache.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from common import gflops, interleaved, machine, matmul

import jdp
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data import Episodes
from jdp.networks import NetworkConfig, ValueNetworkConfig
from jdp.planners import CriticConfig, ModelConfig, SamplingConfig
from jdp.planners.diffuser import DiffuserPlannerConfig
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.fql import FQLConfig
from jdp.runs.export import export_policy, read_export
from jdp.types import Policy, PyTree, Spec

CALLS = {"diffuser": 2, "diffusion_policy": 20, "fql": 100, "td3_bc": 100}  # in one timed turn


class Subject(NamedTuple):
    policy: Policy
    state: PyTree


def subjects(data: Episodes) -> dict[str, Subject]:
    """A planner, two policies and an agent, about as large as the cpu presets'."""
    planner = DiffuserPlannerConfig(
        horizon=32,
        candidates=16,
        model=ModelConfig(NetworkConfig(features=32)),
        critic=CriticConfig(ValueNetworkConfig(features=32)),
        sampling=SamplingConfig(sampler="dpmpp_2m", steps=10, warm_steps=0),
    )
    methods = {
        "diffuser": jdp.planners.make(planner, data.spec),
        "diffusion_policy": jdp.policies.make(DiffusionPolicyConfig(features=256), data.spec),
        "fql": jdp.policies.make(FQLConfig(hidden=(256,) * 3), data.spec),
        "td3_bc": jdp.agents.make(TD3BCConfig(), data.spec),
    }
    found = {}
    for name, method in methods.items():
        view = method.learner.draws.view(jdp.data.prepared(method.learner.draws, data))
        found[name] = Subject(method.policy, method.learner.init(jax.random.key(0), view))
    return found


def repeat(decide: Callable[[Any], Any], keys: list, calls: int) -> Callable[[], Any]:
    """`calls` decisions, each waited for."""

    def run() -> Any:
        for i in range(calls):
            action = jax.block_until_ready(decide(keys[i % len(keys)]))
        return action

    return run


def measure(
    name: str, subject: Subject, spec: Spec, batch: int, folder: Path, repeats: int
) -> dict[str, Any]:
    policy, state = subject
    observation = 0.1 * jax.random.normal(jax.random.key(1), (batch, spec.observation_dim))
    goal, keys = jnp.zeros((batch, 0)), list(jax.random.split(jax.random.key(2), 8))
    path, began = folder / name, time.perf_counter()
    export_policy(path, policy, state, spec)
    exporting = time.perf_counter() - began

    began = time.perf_counter()
    start, act = jax.jit(policy.init), jax.jit(policy.act)
    carry = start(observation)
    action = jax.block_until_ready(act(keys[0], state, carry, observation, goal)[1].action)
    first = time.perf_counter() - began

    began = time.perf_counter()
    made = read_export(path)
    flat, numbers = made.start(observation), [jax.random.key_data(key) for key in keys]
    same = jax.block_until_ready(made.act(numbers[0], flat, observation)[1])
    first_exported = time.perf_counter() - began

    calls = CALLS[name]
    ours = repeat(lambda key: act(key, state, carry, observation, goal)[1].action, keys, calls)
    theirs = repeat(lambda key: made.act(key, flat, observation)[1], numbers, calls)
    took = interleaved({"process": ours, "exported": theirs, "matmul": matmul()}, repeats)
    rate = {which: calls / took[which] for which in ("process", "exported")}
    return {
        "method": name,
        "environments": batch,
        "decisions_per_second": {which: float(f"{r:.3g}") for which, r in rate.items()},
        "exported_over_process": round(rate["exported"] / rate["process"], 2),
        "seconds_to_first_action": {"process": round(first, 2), "exported": round(first_exported, 2)},
        "seconds_to_export": round(exporting, 2),
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "largest_difference": float(f"{float(jnp.max(jnp.abs(action - same))):.1g}"),
        "matmul_gflops": round(gflops(took["matmul"]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="decisions per second of exported policies")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="environments at once")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    data = jdp.data.load("hopper-medium", source="bundled")
    found = subjects(data)
    with tempfile.TemporaryDirectory() as folder:
        results = [
            measure(name, subject, data.spec, batch, Path(folder), args.repeats)
            for name, subject in found.items()
            for batch in args.batches
        ]
    print(json.dumps({"machine": machine(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
