"""Updates per second of the model-free agents, printed as JSON.

    python benchmarks/agents.py [--agents td3_bc iql rebrac] [--rows 1000000] [--updates 100] [--repeats 5]

An update is that of the paper's loop: TD3+BC and ReBRAC two critic steps and an actor step (two
minibatches), IQL one step of V, the actor and both Q. It draws its own uniform random batch from the
packed dataset, inside a jitted scan. Minibatches have 256 rows; ReBRAC, whose authors take 1024, is timed
with both.

The target, from the field's JAX implementations on 2 quiet CPU cores, is 110 (TD3+BC) and 150 (IQL)
updates/s where a float32 matrix product runs at 145 GFLOP/s; it is scaled by the product timed in turns
with the updates. ReBRAC was measured on one contended core only: 24 (256 rows) and 7 (1024) updates per
CPU-second, that is 42.4 and 146.1 CPU-ms an update where TD3+BC took 18.0. Its target is TD3+BC's by that
ratio, 110 * 18.0 / 42.4 = 46.7 and 110 * 18.0 / 146.1 = 13.6 updates/s. Other agents have none yet.
"""

import argparse
import json
from functools import partial

import jax
import jax.numpy as jnp
from common import gflops, interleaved, machine, matmul

from jdp.agents import MODEL_FREE, make
from jdp.types import Agent, Array, PyTree, Spec, pack, unpack
from jdp.types import Transition as T

SPEC = Spec(observation_dim=11, action_dim=3)  # Hopper
TARGETS = {  # (agent, rows of a minibatch) -> updates/s at REFERENCE_GFLOPS
    ("td3_bc", 256): 110.0,
    ("iql", 256): 150.0,
    ("rebrac", 256): 46.7,
    ("rebrac", 1024): 13.6,
}
REFERENCE_GFLOPS = 145.0


def dataset(rows: int, *, next_actions: bool) -> Array:
    """`[rows, 2 O + A + 2]`, `A` more with `next_actions`, of noise."""
    o, a = SPEC.observation_dim, SPEC.action_dim
    keys = jax.random.split(jax.random.key(0), 5)
    return pack(
        T(
            observation=jax.random.normal(keys[0], (rows, o)),
            action=jnp.tanh(jax.random.normal(keys[1], (rows, a))),
            reward=jax.random.normal(keys[3], (rows,)),
            next_observation=jax.random.normal(keys[2], (rows, o)),
            terminal=jnp.zeros(rows),
            next_action=jnp.tanh(jax.random.normal(keys[4], (rows, a))) if next_actions else None,
        )
    )


def updates(key: Array, state: PyTree, data: Array, *, agent: Agent, batch_size: int, count: int) -> PyTree:
    """`count` updates of one seed."""

    def step(state: PyTree, key: Array) -> tuple[PyTree, dict]:
        draw, use = jax.random.split(key)
        rows = jax.random.randint(draw, (agent.batches * batch_size,), 0, data.shape[0])
        batch = unpack(data[rows], SPEC.observation_dim, SPEC.action_dim)
        state, metrics = agent.update(use, state, batch)
        return state, dict(metrics)

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, count))
    return state, jax.tree.map(jnp.mean, metrics)


def measure(name: str, batch_size: int, data: Array, seeds: int, count: int, repeats: int) -> dict:
    agent = make(MODEL_FREE[name](), SPEC)
    keys = jax.random.split(jax.random.key(1), seeds)
    sample = unpack(data[:10_000], SPEC.observation_dim, SPEC.action_dim)
    run = partial(updates, agent=agent, batch_size=batch_size, count=count)
    init = agent.init
    if seeds > 1:
        run, init = jax.vmap(run, in_axes=(0, 0, None)), jax.vmap(init, in_axes=(0, None))
    else:
        keys = keys[0]
    state = jax.jit(init)(keys, sample)
    jitted = jax.jit(run)
    times = interleaved({"updates": lambda: jitted(keys, state, data), "matmul": matmul()}, repeats)
    rate, machine_rate = seeds * count / times["updates"], gflops(times["matmul"])
    found = {
        "agent": name,
        "batch": batch_size,
        "seeds": seeds,
        "updates_per_second": round(rate, 1),  # of all seeds together
        "matmul_gflops": round(machine_rate, 1),
    }
    if (name, batch_size) not in TARGETS:
        return found
    target = TARGETS[name, batch_size] * machine_rate / REFERENCE_GFLOPS
    return {**found, "target": round(target, 1), "share_of_target": round(rate / target, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description="updates per second of the agents")
    parser.add_argument("--agents", nargs="+", choices=MODEL_FREE, default=["td3_bc", "iql", "rebrac"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=100, help="in one timed call")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    needs = {name: make(MODEL_FREE[name](), SPEC).next_actions for name in args.agents}
    data = {kind: dataset(args.rows, next_actions=kind) for kind in set(needs.values())}
    results = [
        measure(name, batch_size, data[needs[name]], seeds, args.updates, args.repeats)
        for seeds in (1, 3)
        for name in args.agents
        for batch_size in [rows for agent, rows in TARGETS if agent == name] or [256]
    ]
    print(json.dumps({"machine": machine(), "rows": args.rows, "results": results}, indent=1))


if __name__ == "__main__":
    main()
