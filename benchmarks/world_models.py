"""Training and rollouts of the ensemble, printed as JSON.

    python benchmarks/world_models.py [--updates 30] [--batch 10000] [--length 5] [--repeats 5]

An update trains seven members of four hidden layers of 200 on 256 rows each, inside the loop of
`jdp.loops.fit`, with drawing the batch and Adam; a rollout steps the five elites with a policy of two
hidden layers of 256. Floating-point operations are counted by hand, products only; the share is of the rate
of a 2048 x 2048 matrix product timed in turns with the rest.
"""

import argparse
import itertools
import json

import jax
import jax.numpy as jnp
from agents import SPEC, dataset
from common import gflops, interleaved, machine, matmul

from jdp.agents import make
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data import batches
from jdp.loops import fit
from jdp.synthesis.imagined import rollout_program
from jdp.types import unpack
from jdp.world_models.bootstrap import Bootstrapped, bootstrap
from jdp.world_models.ensemble import EnsembleConfig, ensemble
from jdp.world_models.termination import hopper

ROWS = 100_000


def products(widths: tuple[int, ...]) -> int:
    """Multiplications and additions of one row through dense layers of these widths."""
    return sum(2 * a * b for a, b in itertools.pairwise(widths))


def main() -> None:
    parser = argparse.ArgumentParser(description="ensemble: training and rollouts")
    parser.add_argument("--updates", type=int, default=30, help="in one timed call")
    parser.add_argument("--batch", type=int, default=10_000, help="rollouts at once")
    parser.add_argument("--length", type=int, default=5, help="steps of a rollout")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    config, rows = EnsembleConfig(), dataset(ROWS, next_actions=False)
    o, a = SPEC.observation_dim, SPEC.action_dim
    model = ensemble(config, SPEC, rule=hopper)
    sample = unpack(rows, o, a)
    state = jax.jit(model.learner.init)(jax.random.key(0), sample)
    data = Bootstrapped(rows, bootstrap(jax.random.key(1), ROWS, config.members))
    draw = batches(model.learner.draws, config.batch_size)

    def train() -> jax.Array:
        nonlocal state
        settings = dict(key=jax.random.key(2), stop=args.updates, chunk=args.updates)
        state = fit(model.learner.update, draw, state, data, **settings)  # type: ignore[arg-type]
        return state.stale

    agent = make(TD3BCConfig(), SPEC)
    actor = jax.tree.map(lambda x: x[None], jax.jit(agent.learner.init)(jax.random.key(3), sample))
    start = sample.observation[None, : args.batch, None], jnp.zeros((1, args.batch, 0, a))
    program = rollout_program(model, agent.policy, args.length)
    frozen = jax.tree.map(jnp.copy, state)

    def roll() -> jax.Array:
        return program(jax.random.split(jax.random.key(4), 1), frozen, actor, *start).alive

    times = interleaved({"train": train, "rollout": roll, "matmul": matmul()}, args.repeats)
    rate = gflops(times["matmul"])
    member = products((o + a, *config.hidden, 2 * (o + 1)))
    update = 3 * member * config.members * config.batch_size  # forward, and twice that backward
    step = member + products((o, 256, 256, a))
    transitions = args.batch * args.length
    results = {
        "matmul_gflops": round(rate, 1),
        "updates_per_second": round(args.updates / times["train"], 1),
        "update_gflop": round(update / 1e9, 3),
        "update_share_of_matmul": round(update * args.updates / times["train"] / 1e9 / rate, 3),
        "rollout_transitions_per_second": round(transitions / times["rollout"]),
        "rollout_share_of_matmul": round(step * transitions / times["rollout"] / 1e9 / rate, 3),
    }
    print(json.dumps({"machine": machine(), "rows": ROWS, **vars(args), "results": results}, indent=1))


if __name__ == "__main__":
    main()
