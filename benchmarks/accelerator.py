"""How much of a device's matrix-product peak training, guided sampling and agents reach, printed as JSON.

    python benchmarks/accelerator.py [--preset cpu|paper] [--repeats 5]

The work of policy-guided diffusion: a training step of the trajectory diffuser, a batch of guided windows
(20 steps of dpmpp_2m, moment-matched guidance to a TD3+BC actor), and updates of TD3+BC, of 3 seeds at once.
Its floating-point operations are those that XLA counts in the compiled program (of loops, with their body
taken as often as it runs, by counting one step alone), the peak is the rate of a matrix product in the same
type and the same run: large enough to fill the device (2048 on a CPU, 8192 elsewhere). Shares compare
machines; operations that are no products (norms, noise, Adam) are in the numerator too. Of bf16 on a device
whose data sheet is known, `mfu` is the share of the sheet's peak. `per_second` counts training steps, guided
windows, and updates of all seeds.

Presets: cpu is that of experiments/pgd_d4rl.py; paper the U-Net of 1024 features, batch 32, for a GPU.
bf16 is of the trajectory network alone: the agent's MLPs are float32 always. On a GPU a float32 product may
use TensorFloat-32 where JAX_DEFAULT_MATMUL_PRECISION allows; then so does the peak.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from agents import SPEC
from common import counted, interleaved, machine

import jdp
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data import Normaliser
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig, Precision, parameter_count
from jdp.networks.layers import dtype_of
from jdp.synthesis import GuidanceConfig, SamplerConfig, guide
from jdp.synthesis.generate import sampling_program
from jdp.types import Array, PyTree, Transition

HORIZON, SEEDS, KEY = 32, 3, jax.random.key(0)
CHANNELS = SPEC.observation_dim + SPEC.action_dim + 2
SAMPLER = SamplerConfig(sigma_max=42.0, batch=255)  # of 3 agents
PEAKS = {"H100": 989.4e3, "H200": 989.4e3, "A100": 312e3}  # GFLOP/s of bf16 products, NVIDIA's data sheets
PER_CALL = {"guided sampling": SAMPLER.batch, "agent update, 3 seeds": SEEDS}
PRESETS = {
    "smoke": (NetworkConfig("residual_unet", 8, 2), DiffuserConfig(batch_size=16)),
    "cpu": (NetworkConfig("residual_unet", 48, 3), DiffuserConfig(batch_size=64)),
    "paper": (NetworkConfig("unet", 1024, 3), DiffuserConfig(batch_size=32)),
}


def product(precision: Precision, size: int) -> tuple[Callable[[], Any], float]:
    """One product of two square matrices."""
    a = jax.random.normal(KEY, (size, size)).astype(dtype_of(precision))
    return counted(jax.jit(lambda x: x @ x), a)[0], 2.0 * size**3


def training_step(diffuser: Any, state: PyTree, batch: int) -> tuple[Callable[[], Any], float]:
    x0 = jax.random.normal(KEY, (batch, HORIZON, CHANNELS))
    return counted(jax.jit(diffuser.learner.update), KEY, state, x0)


def actors() -> tuple[Any, PyTree, Transition]:
    agent = jdp.agents.make(TD3BCConfig(), SPEC)
    o, a, rows = SPEC.observation_dim, SPEC.action_dim, agent.learner.draws.minibatches * 256
    k = jax.random.split(KEY, 5)
    batch = Transition(
        jax.random.normal(k[0], (SEEDS, rows, o)),
        jnp.tanh(jax.random.normal(k[1], (SEEDS, rows, a))),
        jax.random.normal(k[2], (SEEDS, rows)),
        jax.random.normal(k[3], (SEEDS, rows, o)),
        jnp.zeros((SEEDS, rows)),
    )
    states = jax.jit(jax.vmap(agent.learner.init))(jax.random.split(KEY, SEEDS), batch)
    return agent, states, batch


def guided_sampling(diffuser: Any, state: PyTree) -> tuple[Callable[[], Any], float]:
    """All steps; its operations are those of one call of the guided denoiser times the steps."""
    agent, states, _ = actors()
    o, a = SPEC.observation_dim, SPEC.action_dim
    normaliser = Normaliser(np.zeros(CHANNELS, np.float32), np.ones(CHANNELS, np.float32), o, a)
    sigmas = SAMPLER.sigmas()
    denoiser = guide(diffuser.denoiser(state), agent.target, states, normaliser, GuidanceConfig(), sigmas)
    shape = (SAMPLER.batch, HORIZON, CHANNELS)
    x, sigma = jnp.zeros(shape), jnp.ones(())
    _, each = counted(jax.jit(lambda d, x, s: d(x, s)), denoiser, x, sigma)
    run, _ = counted(sampling_program(SAMPLER, shape, None, False), denoiser, None, KEY, sigmas, None)
    return run, each * SAMPLER.steps


def agent_updates() -> tuple[Callable[[], Any], float]:
    agent, states, batch = actors()

    def update(key: Array, states: PyTree, batch: Transition):
        return jax.vmap(agent.learner.update)(jax.random.split(key, SEEDS), states, batch)

    return counted(jax.jit(update), KEY, states, batch)


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description="shares of the peak of matrix products")
    parser.add_argument("--preset", choices=PRESETS, default="cpu" if on_cpu else "paper")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--size", type=int, default=2048 if on_cpu else 8192, help="of the product's matrices"
    )
    args = parser.parse_args()
    network, config = PRESETS[args.preset]
    works: dict[tuple[str, Precision], tuple[Callable[[], Any], float]] = {}
    count = 0
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    for precision in precisions:
        diffuser = trajectory_diffuser(network, config, HORIZON, precision)
        state = jax.jit(diffuser.learner.init)(KEY, jnp.zeros((1, HORIZON, CHANNELS)))
        count = parameter_count(state.params)
        works["matmul", precision] = product(precision, args.size)
        works["training step", precision] = training_step(diffuser, state, config.batch_size)
        works["guided sampling", precision] = guided_sampling(diffuser, state)
    works["agent update, 3 seeds", "float32"] = agent_updates()
    times = interleaved({f"{a}|{b}": run for (a, b), (run, _) in works.items()}, args.repeats)
    rates = {key: works[key][1] / times["|".join(key)] / 1e9 for key in works}
    sheet = next((peak for name, peak in PEAKS.items() if name in jax.devices()[0].device_kind), None)
    results = [
        {
            "work": key[0],
            "precision": key[1],
            "seconds": round(times["|".join(key)], 5),
            "per_second": round(PER_CALL.get(key[0], 1) / times["|".join(key)], 2),
            "gflop": round(works[key][1] / 1e9, 3),
            "gflops": round(rate, 1),
            "share_of_peak": round(rate / rates["matmul", key[1]], 3),
            **({"mfu": round(rate / sheet, 3)} if sheet and key[1] == "bf16" else {}),
        }
        for key, rate in rates.items()
    ]
    print(
        json.dumps(
            {"machine": machine(), "preset": args.preset, "parameters": count, "product": args.size,
             "results": results},
            indent=1,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
