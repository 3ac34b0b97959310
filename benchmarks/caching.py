"""Block-wise adaptive caching: operations, wall clock and error against no cache, by budget.

    python benchmarks/caching.py --updates 1000 --steps 20

Prints JSON for two networks on the bundled hopper-medium: the residual MLP of the shipped policy
`hopper-medium-policy`, and a diffusion transformer of whole trajectories, trained here. Each budget is run by
the adaptive schedule without and with the bubbling union (0 or 2 branches), and by the uniform one. `error`
is the root mean square distance to the samples without a cache, in standard deviations of those. Profiles are
of other noise than samples.
"""

import argparse
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import counted, interleaved, machine
from trajectories import Bench

import jdp
from jdp.diffusion.caching import CacheSchedule, adaptive, profile, sample_cached, uniform
from jdp.diffusion.schedules import karras
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig
from jdp.policies import actions
from jdp.policies.chunks import condition
from jdp.types import Denoiser

ROWS = 64  # of a profile
BUBBLED = 2  # branches of the union


def of_policy(batch: int) -> tuple[Denoiser, tuple[int, ...]]:
    """The denoiser of the shipped policy at observations of its data, and the shape of what it samples."""
    run, data = jdp.load_pretrained("hopper-medium-policy"), jdp.data.load("hopper-medium", source="bundled")
    config: Any = run.settings
    state = jax.tree.map(lambda leaf: leaf[0], run.states["policy"])  # of the first seed
    seen = data.observations[np.random.default_rng(batch).integers(0, len(data), batch)]
    shown = condition(state.standardise, jnp.asarray(seen)[:, None], jnp.zeros((batch, 0)), data.spec)
    return actions.denoiser(state.actor.ema, shown, config), (batch, config.chunk * data.spec.action_dim)


def of_transformer(bench: Bench, updates: int, batch: int) -> tuple[Denoiser, tuple[int, ...]]:
    """The denoiser of trajectories, trained for `updates`, and their shape."""
    diffuser, state, _ = bench.train(
        NetworkConfig("transformer", 96, 3), DiffuserConfig(updates, learning_rate=1e-3)
    )
    return diffuser.denoiser(state), (batch, *bench.noise(1, 1.0).shape[1:])


def measured(
    denoiser: Denoiser, shape: tuple[int, ...], profiled: tuple[Denoiser, tuple[int, ...]], sigmas: jax.Array
) -> list[dict[str, Any]]:
    """A line for each budget and schedule, the first without a cache."""
    n = sigmas.shape[0] - 1
    noise = [sigmas[0] * jax.random.normal(jax.random.key(k), s) for k, s in enumerate((profiled[1], shape))]
    found = jax.jit(profile)(profiled[0], noise[0], sigmas)
    branches = found.feeds.shape[0]
    schedules: dict[tuple[int, str], CacheSchedule] = {(n, "everything"): uniform(branches, n, n)}
    for budget in sorted({max(n // 2, 1), max(n // 3, 1), max(n // 5, 1), max(n // 10, 1)}, reverse=True):
        schedules[budget, "adaptive"] = adaptive(found, budget, upstream=0)
        schedules[budget, "bubbled"] = adaptive(found, budget, upstream=BUBBLED)
        schedules[budget, "uniform"] = uniform(branches, n, budget)
    run, flop = {}, {}
    for name, schedule in schedules.items():
        sample = jax.jit(partial(sample_cached, schedule=schedule))
        run[name], flop[name] = counted(sample, denoiser, noise[1], sigmas)
    seconds = interleaved(run, repeats=7)  # type: ignore[arg-type]
    plain = np.asarray(run[n, "everything"]())
    return [
        {
            "budget": name[0],
            "schedule": name[1],
            "computed": round(schedules[name].share, 3),
            "mflop": round(flop[name] / 1e6, 2),
            "milliseconds": round(1e3 * seconds[name], 3),
            "error": round(float(np.sqrt(np.mean(np.square(np.asarray(call()) - plain))) / plain.std()), 4),
        }
        for name, call in run.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=1000, help="of the transformer")
    parser.add_argument("--steps", type=int, default=20, help="of the sampler (DDIM on a Karras schedule)")
    parser.add_argument("--batch", type=int, default=64, help="rows that are sampled")
    args = parser.parse_args()
    policy = measured(*of_policy(args.batch), of_policy(ROWS), karras(args.steps, 0.02, 5.0))
    denoiser, shape = of_transformer(Bench(), args.updates, args.batch)
    plans = measured(denoiser, shape, (denoiser, (ROWS, *shape[1:])), karras(args.steps, 0.02, 42.0))
    print(
        json.dumps(
            {"policy": policy, "transformer": plans, "settings": vars(args), "machine": machine()}, indent=1
        )
    )


if __name__ == "__main__":
    main()
