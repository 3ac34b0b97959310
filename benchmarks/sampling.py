"""The reference's U-Net (128 features): training step, guided generation, and what few steps cost.

    python benchmarks/sampling.py

Prints JSON. The sampler of the public code of policy-guided diffusion is restated here as it was
published (256 Heun steps, churn 80, the predictor starting from the state without its churn noise), so
that speed and error stand beside ours, on one network trained for `--steps`.
"""

import argparse
import json
from typing import Any

import jax
import jax.numpy as jnp
from common import gflops, interleaved, machine, matmul, operations, work
from trajectories import HORIZON, Bench

import jdp
from jdp import loops
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data.draws import WindowRows
from jdp.diffusion import exact, samplers, schedules
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig, parameter_count
from jdp.synthesis import GuidanceConfig, SamplerConfig, guide

NETWORK = NetworkConfig("unet", 128, 3)
OURS = {
    "dpmpp_2m, 32 steps (default)": SamplerConfig(sigma_max=42.0),  # as of windows of hopper
    "dpmpp_2m_sde, 64 steps (paper preset)": SamplerConfig(
        "dpmpp_2m_sde", steps=64, eta=1.0, sigma_max=42.0, sigma_min=0.005
    ),
}
CHURN = samplers.Churn()


def published(denoiser: Any, x: jax.Array, sigmas: jax.Array, *, key: jax.Array) -> jax.Array:
    """The published sampler: its predictor, not its corrector, starts from the un-churned x."""
    n = sigmas.shape[0] - 1

    def step(x: jax.Array, item: Any) -> tuple[jax.Array, None]:
        k, sigma, after = item
        x_hat, sigma_hat = samplers.churn_step(k, x, sigma, n, CHURN)
        slope = (x_hat - denoiser(x_hat, sigma_hat)) / sigma_hat
        predicted = x + (after - sigma_hat) * slope
        slope_after = (predicted - denoiser(predicted, after)) / after
        return x_hat + (after - sigma_hat) * 0.5 * (slope + slope_after), None

    keys = jax.random.split(key, n)
    x, _ = jax.lax.scan(step, x, (keys[:-1], sigmas[:-2], sigmas[1:-1]))
    return denoiser(x, sigmas[-2])  # below S_tmin there is no churn, and the step to 0 ends at D


def judge(
    bench: Bench, denoiser: Any, agent: Any, states: Any, config: SamplerConfig, batch: int
) -> dict[str, Any]:
    """Speed without and with guidance, error of the std, and dynamics error of one sampler."""
    sigmas, sample, key = config.sigmas(), jax.jit(config.function()), jax.random.key(9)
    guided = guide(denoiser, agent.target, states, bench.normaliser, GuidanceConfig(), sigmas)
    x = bench.noise(batch, float(sigmas[0]))
    times = interleaved(
        {
            "unguided": lambda: sample(denoiser, x, sigmas, key=key),
            "guided": lambda: sample(guided, x, sigmas, key=key),
            "matmul": matmul(),
        },
        repeats=5,
    )
    peak = gflops(times["matmul"])
    return {
        "unguided_per_s": round(batch / times["unguided"], 1),
        "guided_per_s": round(batch / times["guided"], 1),
        "matmul_gflops": round(peak, 1),
        "std_error": exact.std_errors(config.function(), sigmas, samples=20_000),
        "dynamics_error_median_mean": bench.error(sample(denoiser, x, sigmas, key=key), batch),
    }


def paper_memory() -> dict[str, float]:
    """Peak of a training step of the paper preset against its state, from XLA's own plan."""
    config = DiffuserConfig(batch_size=32)
    diffuser = trajectory_diffuser(NetworkConfig("unet", 1024, 3), config, horizon=32)
    x0 = jax.ShapeDtypeStruct((32, 32, 16), jnp.float32)
    state = jax.eval_shape(diffuser.learner.init, jax.random.key(0), x0)
    rows, index = jax.ShapeDtypeStruct((1000, 16), jnp.float32), jax.ShapeDtypeStruct((900,), jnp.int32)
    program = loops.chunk_program(
        diffuser.learner.update, jdp.data.batches(diffuser.learner.draws, 32), None, 0
    )
    number = jax.ShapeDtypeStruct((), jnp.int32)
    plan = program.lower(state, WindowRows(rows, index, index), jax.random.key(0), number, number).compile()
    memory: Any = plan.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    gib = 2.0**30
    return {"state_gib": size / gib, "peak_gib": peak / gib, "ratio": peak / size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="training steps of the network")
    parser.add_argument("--batch", type=int, default=64, help="trajectories sampled at once")
    parser.add_argument("--memory", action="store_true", help="also plan the paper preset's step (slow)")
    args = parser.parse_args()
    bench = Bench()
    diffuser, state, seconds = bench.train(NETWORK, DiffuserConfig(steps=args.steps, batch_size=32))
    denoiser = diffuser.denoiser(state)

    agent = jdp.agents.make(TD3BCConfig(), bench.data.spec)
    real = agent.learner.draws.view(jdp.data.prepared(agent.learner.draws, bench.data))
    states = jax.tree.map(lambda leaf: leaf[None], agent.learner.init(jax.random.key(3), real))
    theirs = schedules.karras(256)
    x80, slow = bench.noise(args.batch, 80.0), jax.jit(published)
    ours = {name: judge(bench, denoiser, agent, states, config, args.batch) for name, config in OURS.items()}
    # An eighth of the published chain is timed (its cost is linear in the steps); all of it is judged.
    few = jnp.concatenate([theirs[::8], theirs[-1:]])
    times = interleaved(
        {"slow": lambda: slow(denoiser, x80, few, key=jax.random.key(9)), "matmul": matmul()}, repeats=3
    )
    scale = 256 / (few.shape[0] - 1)
    peak = gflops(times["matmul"])
    windows = jnp.zeros((32, HORIZON, bench.channels))
    flop = operations(diffuser.learner.update, jax.random.key(0), state, windows)
    result = {
        "network": {"kind": "unet", "features": 128, "parameters": parameter_count(state.params)},
        "matmul_gflops": round(peak, 1),
        "training_step": work("training step", seconds / (args.steps - 20), flop, peak),
        "ours": ours,
        "published": {
            "sampler": "Heun with churn 80, 256 steps, as published",
            "unguided_per_s": round(args.batch / (times["slow"] * scale), 2),
            "std_error": exact.std_errors(published, theirs, samples=20_000),
            "dynamics_error_median_mean": bench.error(
                slow(denoiser, x80, theirs, key=jax.random.key(9)), args.batch
            ),
        },
        "machine": machine(),
    }
    if args.memory:
        result["paper_step_memory"] = paper_memory()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
