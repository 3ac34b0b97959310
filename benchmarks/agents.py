"""Updates per second of the model-free agents, printed as JSON.

    python benchmarks/agents.py [--agents td3_bc iql rebrac] [--rows 1000000] [--updates 100] [--repeats 5]

An update is that of the paper's loop: TD3+BC and ReBRAC two critic steps and an actor step (two
minibatches), IQL one step of V, the actor and both Q. It draws its own uniform random batch from the
packed dataset, inside a jitted scan. Minibatches have 256 rows; ReBRAC, whose authors take 1024, is timed
with both. Floating-point operations are those
that XLA counts in an update (see `common.operations`).
"""

import argparse
import json
from functools import partial

import jax
import jax.numpy as jnp
from common import gflops, interleaved, machine, matmul, operations, work

from jdp import registry
from jdp.agents import make
from jdp.data import batches
from jdp.types import Array, Method, PyTree, Spec, pack
from jdp.types import Transition as T

SPEC = Spec(observation_dim=11, action_dim=3)  # Hopper
MINIBATCHES = {"rebrac": (256, 1024)}  # rows of one; of all others 256
MODEL_FREE = [name for name, e in registry.entries("agent").items() if not e.options.get("model_based")]


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


def updates(key: Array, state: PyTree, data: Array, *, agent: Method, batch_size: int, count: int) -> PyTree:
    """`count` updates of one seed."""

    drawn = batches(agent.learner.draws, batch_size)  # type: ignore[arg-type]

    def step(state: PyTree, key: Array) -> tuple[PyTree, dict]:
        draw, use = jax.random.split(key)
        state, metrics = agent.learner.update(use, state, drawn(draw, data))
        return state, dict(metrics)

    state, metrics = jax.lax.scan(step, state, jax.random.split(key, count))
    return state, jax.tree.map(jnp.mean, metrics)


def measure(name: str, batch_size: int, data: Array, seeds: int, count: int, repeats: int) -> dict:
    agent = make(name, SPEC)
    keys = jax.random.split(jax.random.key(1), seeds)
    sample = agent.learner.draws.view(data[:10_000])
    run = partial(updates, agent=agent, batch_size=batch_size, count=count)
    init = agent.learner.init
    if seeds > 1:
        run, init = jax.vmap(run, in_axes=(0, 0, None)), jax.vmap(init, in_axes=(0, None))
    else:
        keys = keys[0]
    state = jax.jit(init)(keys, sample)
    jitted = jax.jit(run)
    times = interleaved({"updates": lambda: jitted(keys, state, data), "matmul": matmul()}, repeats)
    flop = operations(run, keys, state, data)  # of one update of every seed
    line = work(name, times["updates"] / count, flop, gflops(times["matmul"]))
    rate = seeds * count / times["updates"]  # of all seeds together
    return {**line, "batch": batch_size, "seeds": seeds, "updates_per_second": round(rate, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description="updates per second of the agents")
    parser.add_argument("--agents", nargs="+", choices=MODEL_FREE, default=["td3_bc", "iql", "rebrac"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=100, help="in one timed call")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    needs = {name: make(name, SPEC).learner.draws.next_actions for name in args.agents}
    data = {kind: dataset(args.rows, next_actions=kind) for kind in set(needs.values())}
    results = [
        measure(name, batch_size, data[needs[name]], seeds, args.updates, args.repeats)
        for seeds in (1, 3)
        for name in args.agents
        for batch_size in MINIBATCHES.get(name, (256,))
    ]
    print(json.dumps({"machine": machine(), "rows": args.rows, "results": results}, indent=1))


if __name__ == "__main__":
    main()
