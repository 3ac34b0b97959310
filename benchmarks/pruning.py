"""Half of the blocks of the shipped hopper policy, distilled from the whole (HierarchicalPrune).

    python benchmarks/pruning.py [--episodes 256] [--updates 2000] [--arms half_distilled] [--smoke]

Prints JSON. Arms: the whole network; its first half as it is; that distilled on the bundled hopper-medium;
that with the early part held fixed, as the paper has it; and the LAST half distilled. Of each: the
normalised score with an interval over episodes that all begin alike, the ratio of its mean return to that of
the whole with a bootstrapped interval, and the loss of denoising the data. Of whole and half: operations,
milliseconds of a decision that samples, in turns, medians, and the median over the turns of the half's share
of the whole's time, with a bootstrapped interval, beside the machine's load. Times do not depend on what was
learned: `--episodes 2 --updates 2 --arms half_distilled` has them in a minute. Arms beside these two play a
fourth of the episodes.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import counted, machine, turns

import jdp
from jdp import evaluation, loops
from jdp.data import batches
from jdp.learning import pruning
from jdp.policies import actions, chunks
from jdp.policies.chunks import CloneState
from jdp.policies.pruned import pruned
from jdp.types import Method, Network, Params, PyTree, Spec

MODEL, ROWS, RESAMPLED, BATCH = "hopper-medium-policy", 2048, 10_000, 128
TIMED = ("whole", "half_distilled")  # the others have the shapes of the second


def denoising(config: Any, state: Any, spec: Spec, rows: PyTree, method: Method) -> Callable[..., jax.Array]:
    """`loss(network, params)`, of denoising the same noised chunks of the data."""
    batch = batches(method.learner.draws, ROWS)(jax.random.key(1), jax.tree.map(jnp.asarray, rows))
    seen, x0 = chunks.example(batch, state.standardise, config, spec)
    sigma = actions.levels(jax.random.key(2), ROWS, config)

    @partial(jax.jit, static_argnums=0)
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


ARMS = ("half", "half_distilled", "half_distilled_early_fixed", "last_half_distilled")


def arms(
    config: Any, spec: Spec, state: CloneState, rows: PyTree, updates: int, whole: Method, names: list[str]
) -> dict:
    """`(config, method, state)` of each arm."""
    blocks = config.blocks
    half = (blocks + 1) // 2
    found: dict[str, tuple[Any, Method, Any]] = {"whole": (config, whole, state)}
    first, last = tuple(range(half)), tuple(range(blocks - half, blocks))
    kinds = {
        "half": (first, 0, 0),
        "half_distilled": (first, updates, 0),
        "half_distilled_early_fixed": (first, updates, half),
        "last_half_distilled": (last, updates, 0),
    }
    for name in names:
        keep, made, protected = kinds[name]
        smaller, method = pruned(config, spec, state, keep, steps=updates, protected=protected)
        learned = loops.train(
            method.learner, rows, key=jax.random.key(4), updates=made, batch_size=BATCH, chunk=updates
        )
        found[name] = (smaller, method, CloneState(learned.actor._replace(opt_state=()), learned.standardise))
        report(f"{name} made")
    return found


def report(line: str) -> None:
    print(f"{time.process_time():.0f} s of processor time: {line}", file=sys.stderr, flush=True)


def deciding(method: Method, state: Any, spec: Spec, batch: int) -> tuple[Callable[[], Any], float]:
    """A compiled call that draws a chunk in `batch` environments, and its operations."""
    observation, goal = jnp.zeros((batch, spec.observation_dim)), jnp.zeros((batch, 0))
    act, carry = jax.jit(method.policy.act), method.policy.init(observation)
    return counted(act, jax.random.key(0), state, carry, observation, goal)


def share(of: np.ndarray, to: np.ndarray) -> list[float]:
    """The median of `of / to` over turns, and its bootstrapped 95 % interval."""
    ratios, rng = of / to, np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(0, len(ratios), (RESAMPLED // 10, len(ratios)))], axis=1)
    return [round(float(v), 3) for v in (np.median(ratios), *np.quantile(medians, [0.025, 0.975]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--updates", type=int, default=2000, help="of each distillation")
    parser.add_argument("--repeats", type=int, default=200, help="timed decisions of each arm")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="beside the whole")
    parser.add_argument("--smoke", action="store_true", help="tiny")
    args = parser.parse_args()
    if args.smoke:
        args.episodes, args.updates, args.repeats = 2, 2, 2
    run, data = jdp.load_pretrained(MODEL), jdp.data.load("hopper-medium", source="bundled")
    config, spec, state = run.settings, data.spec, run.state()
    whole = jdp.policies.make(config, spec)
    state = state._replace(actor=state.actor._replace(opt_state=()))
    rows = jdp.data.prepared(whole.learner.draws, data)
    loss = denoising(config, state, spec, rows, whole)
    sensitivities = pruning.sensitivity(config.network(), state.actor.ema, loss)
    found, lines, returns = arms(config, spec, state, rows, args.updates, whole, args.arms), {}, {}
    make = evaluation.environment_maker(spec)
    for name, (its, method, learned) in found.items():
        count = args.episodes if name in TIMED else max(args.episodes // 4, 2)
        played = loops.play(method.policy, jax.random.key(5), learned, make, episodes=count, seed=3_000_000)
        report(f"{name} played")
        returns[name] = np.asarray(played.returns).ravel()
        scores = evaluation.scores_of(returns[name], spec)
        lines[name] = {
            "blocks": its.blocks,
            "episodes": count,
            "parameters": jdp.networks.parameter_count(learned.actor.ema),
            "score": [round(float(v), 1) for v in evaluation.statistics.interval(scores)],
            "return_ratio": ratio(returns[name], returns["whole"]),
            "denoising_loss": round(float(loss(its.network(), learned.actor.ema)), 5),
        }
    shares: dict[str, list[float]] = {}
    load = os.getloadavg()[0]
    for batch in (1, 64):
        calls = {name: deciding(*found[name][1:], spec, batch) for name in TIMED if name in found}
        times = turns({name: call for name, (call, _) in calls.items()}, args.repeats)
        if len(times) == len(TIMED):
            shares[f"batch_{batch}"] = share(*(np.array(times[name]) for name in reversed(TIMED)))
        for name, (_, flop) in calls.items():
            lines[name][f"milliseconds_batch_{batch}"] = round(1e3 * float(np.median(times[name])), 3)
            lines[name][f"mflop_step_batch_{batch}"] = round(flop / 1e6, 3)  # a loop's body counts once
        report(f"timed {batch}")
    timed = {"half_of_whole": shares, "load": [round(v, 1) for v in (load, os.getloadavg()[0])]}
    told = {
        "model": MODEL,
        "time": timed,
        "sensitivity": [round(float(v), 5) for v in sensitivities],
        "arms": lines,
    }
    print(json.dumps({**told, "settings": vars(args), "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
