"""Updates per second of the agents, printed as JSON.

    python benchmarks/agents.py [--rows 1000000] [--updates 100] [--repeats 5]

An update is that of the paper's loop: TD3+BC two critic steps and an actor step (two minibatches of
256), IQL one step of V, the actor and both Q. It draws its own uniform random batch from the packed
dataset, inside a jitted scan. The target, from the field's JAX implementations on 2 quiet CPU cores, is
110 (TD3+BC) and 150 (IQL) updates/s where a float32 matrix product runs at 145 GFLOP/s; it is scaled by
the product timed in turns with the updates.
"""

import argparse
import json
from functools import partial

import jax
import jax.numpy as jnp
from common import gflops, interleaved, machine, matmul

from jdp.agents import IQLConfig, TD3BCConfig, make
from jdp.types import Agent, Array, PyTree, Spec, pack, unpack
from jdp.types import Transition as T

SPEC = Spec(observation_dim=11, action_dim=3)  # Hopper
BATCH = 256
TARGETS = {"td3_bc": 110.0, "iql": 150.0}  # updates/s at REFERENCE_GFLOPS
REFERENCE_GFLOPS = 145.0


def dataset(rows: int) -> Array:
    """`[rows, 2 O + A + 2]`, of noise."""
    o, a = SPEC.observation_dim, SPEC.action_dim
    keys = jax.random.split(jax.random.key(0), 4)
    observation = jax.random.normal(keys[0], (rows, o))
    action = jnp.tanh(jax.random.normal(keys[1], (rows, a)))
    following = jax.random.normal(keys[2], (rows, o))
    return pack(T(observation, action, jax.random.normal(keys[3], (rows,)), following, jnp.zeros(rows)))


def updates(key: Array, state: PyTree, data: Array, *, agent: Agent, count: int) -> PyTree:
    """`count` updates of one seed."""

    def step(state: PyTree, key: Array) -> tuple[PyTree, dict]:
        draw, use = jax.random.split(key)
        rows = jax.random.randint(draw, (agent.batches * BATCH,), 0, data.shape[0])
        batch = unpack(data[rows], SPEC.observation_dim, SPEC.action_dim)
        state, metrics = agent.update(use, state, batch)
        return state, dict(metrics)

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, count))
    return state, jax.tree.map(jnp.mean, metrics)


def measure(name: str, agent: Agent, data: Array, seeds: int, count: int, repeats: int) -> dict:
    keys = jax.random.split(jax.random.key(1), seeds)
    sample = unpack(data[:10_000], SPEC.observation_dim, SPEC.action_dim)
    run = partial(updates, agent=agent, count=count)
    init = agent.init
    if seeds > 1:
        run, init = jax.vmap(run, in_axes=(0, 0, None)), jax.vmap(init, in_axes=(0, None))
    else:
        keys = keys[0]
    state = jax.jit(init)(keys, sample)
    jitted = jax.jit(run)
    times = interleaved({"updates": lambda: jitted(keys, state, data), "matmul": matmul()}, repeats)
    rate, machine_rate = seeds * count / times["updates"], gflops(times["matmul"])
    target = TARGETS[name] * machine_rate / REFERENCE_GFLOPS
    return {
        "agent": name,
        "seeds": seeds,
        "updates_per_second": round(rate, 1),  # of all seeds together
        "matmul_gflops": round(machine_rate, 1),
        "target": round(target, 1),
        "share_of_target": round(rate / target, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="updates per second of the agents")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=100, help="in one timed call")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    data = dataset(args.rows)
    results = [
        measure(name, make(config, SPEC), data, seeds, args.updates, args.repeats)
        for seeds in (1, 3)
        for name, config in (("td3_bc", TD3BCConfig()), ("iql", IQLConfig()))
    ]
    print(json.dumps({"machine": machine(), "batch": BATCH, "rows": args.rows, "results": results}, indent=1))


if __name__ == "__main__":
    main()
