"""Half of the blocks of the shipped hopper policy, distilled from the whole (HierarchicalPrune): score and time.

    python benchmarks/pruning.py [--episodes 256] [--updates 5000] [--repeats 200] [--smoke]

Prints JSON. Arms: the whole network; its first half as it is; that distilled on the bundled hopper-medium; that
with the early part held fixed, as the paper has it; and the LAST half distilled. Of each: the normalised score
with an interval over episodes that all begin alike, the ratio of its mean return to that of the whole with a
bootstrapped interval, the loss of denoising the data, operations, and milliseconds of a decision that samples, of
all arms in turns, medians.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import interleaved, machine, operations

import jdp
from jdp import evaluation, loops
from jdp.data import batches
from jdp.learning import pruning
from jdp.policies import actions, chunks
from jdp.policies.chunks import CloneState
from jdp.policies.pruned import pruned
from jdp.types import Method, Network, Params, PyTree, Spec

MODEL, ROWS, RESAMPLED = "hopper-medium-policy", 4096, 10_000


def denoising(config: Any, state: Any, spec: Spec, rows: PyTree, method: Method) -> Callable[..., jax.Array]:
    """`loss(network, params)`, of denoising the same noised chunks of the data."""
    batch = batches(method.learner.draws, ROWS)(jax.random.key(1), jax.tree.map(jnp.asarray, rows))
    seen, x0 = chunks.example(batch, state.standardise, config, spec)
    sigma = actions.levels(jax.random.key(2), ROWS, config)

    def loss(network: Network, params: Params) -> jax.Array:
        apply = actions.conditioned(network.apply)
        return config.trains().loss(jax.random.key(3), apply, (params, seen), x0, sigma=sigma)[0]

    return loss


def ratio(of: np.ndarray, to: np.ndarray) -> list[float]:
    """Mean return over mean return, and its bootstrapped 95 % interval."""
    rng = np.random.default_rng(0)
    means = [x[rng.integers(0, len(x), (RESAMPLED, len(x)))].mean(1) for x in (of, to)]
    low, high = np.quantile(means[0] / means[1], [0.025, 0.975])
    return [round(float(v), 3) for v in (of.mean() / to.mean(), low, high)]


def arms(config: Any, spec: Spec, state: CloneState, rows: PyTree, updates: int, whole: Method) -> dict:
    """`(config, method, state)` of each arm."""
    blocks = config.blocks
    half = (blocks + 1) // 2
    found: dict[str, tuple[Any, Method, Any]] = {"whole": (config, whole, state)}
    kinds = {
        "half": (range(half), 0, 0),
        "half_distilled": (range(half), updates, 0),
        "half_distilled_early_fixed": (range(half), updates, half),
        "last_half_distilled": (range(blocks - half, blocks), updates, 0),
    }
    for name, (keep, steps, protected) in kinds.items():
        smaller, method = pruned(config, spec, state, keep, steps=steps, protected=protected)
        learned = loops.train(
            method.learner, rows, key=jax.random.key(4), updates=steps, batch_size=256, chunk=max(steps, 1)
        )
        found[name] = (smaller, method, CloneState(learned.actor, learned.standardise))
    return found


def deciding(method: Method, state: Any, spec: Spec, batch: int) -> tuple[Callable, tuple]:
    """A compiled call that draws a chunk in `batch` environments, and what it takes."""
    observation, goal = jnp.zeros((batch, spec.observation_dim)), jnp.zeros((batch, 0))
    carry, act = method.policy.init(observation), jax.jit(method.policy.act)
    return act, (jax.random.key(0), state, carry, observation, goal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--updates", type=int, default=5000, help="of each distillation")
    parser.add_argument("--repeats", type=int, default=200, help="timed decisions of each arm")
    parser.add_argument("--smoke", action="store_true", help="tiny")
    args = parser.parse_args()
    if args.smoke:
        args.episodes, args.updates, args.repeats = 2, 2, 2
    run, data = jdp.load_pretrained(MODEL), jdp.data.load("hopper-medium", source="bundled")
    config, spec, state = run.settings, data.spec, run.state()
    whole = jdp.policies.make(config, spec)
    rows = jdp.data.prepared(whole.learner.draws, data)
    loss = denoising(config, state, spec, rows, whole)
    sensitivities = pruning.sensitivity(config.network(), state.actor.ema, loss)
    found, lines, returns = arms(config, spec, state, rows, args.updates, whole), {}, {}
    make = evaluation.environment_maker(spec)
    for name, (its, method, learned) in found.items():
        played = loops.play(method.policy, jax.random.key(5), learned, make, episodes=args.episodes, seed=3_000_000)
        returns[name] = np.asarray(played.returns).ravel()
        scores = evaluation.scores_of(returns[name], spec)
        lines[name] = {
            "blocks": its.blocks,
            "parameters": jdp.networks.parameter_count(learned.actor.ema),
            "score": [round(float(v), 1) for v in evaluation.statistics.interval(scores)],
            "return_ratio": ratio(returns[name], returns["whole"]),
            "denoising_loss": round(float(loss(its.network(), learned.actor.ema)), 5),
        }
    for batch in (1, 64):
        calls = {name: deciding(method, s, spec, batch) for name, (_, method, s) in found.items()}
        times = interleaved({n: lambda f=f, a=a: f(*a)[1].action for n, (f, a) in calls.items()}, args.repeats)
        for name, (act, given) in calls.items():
            lines[name][f"milliseconds_batch_{batch}"] = round(1e3 * times[name], 3)
            lines[name][f"mflop_batch_{batch}"] = round(operations(act, *given) / 1e6, 3)
    told = {"model": MODEL, "sensitivity": [round(float(v), 5) for v in sensitivities], "arms": lines}
    print(json.dumps({**told, "settings": vars(args), "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
