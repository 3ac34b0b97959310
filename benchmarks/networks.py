"""How the CPU default was chosen: dynamics error against training time and generation speed.

    python benchmarks/networks.py --minutes 0.5 1.5

Prints JSON and, with --figure, draws it. Every network is trained anew for each budget (its learning
rate falls to 0 at the end of it); the steps a budget holds are measured first.
"""

import argparse
import json
from typing import Any

import jax
from common import gflops, interleaved, machine, matmul
from trajectories import Bench

from jdp.diffusion import samplers
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig, parameter_count
from jdp.synthesis import SamplerConfig

CANDIDATES = {
    "residual U-Net 32": (NetworkConfig("residual_unet", 32, 3), 2e-3),
    "residual U-Net 48": (NetworkConfig("residual_unet", 48, 3), 2e-3),
    "mixer 128": (NetworkConfig("mixer", 128, 3), 2e-3),
    "transformer 96": (NetworkConfig("transformer", 96, 3), 1e-3),
}
BATCH = 256


def measure(bench: Bench, network: NetworkConfig, learning_rate: float, minutes: float) -> dict[str, Any]:
    """Trains for about `minutes`, samples, and asks the simulator."""

    def config(steps: int) -> DiffuserConfig:
        return DiffuserConfig(steps=steps, learning_rate=learning_rate)

    _, _, probe = bench.train(network, config(220))
    steps = max(int(60 * minutes * 200 / probe), 100)
    diffuser, state, seconds = bench.train(network, config(steps))
    denoiser, sigmas = diffuser.denoiser(state), SamplerConfig(sigma_max=42.0).sigmas()
    sample, x = jax.jit(samplers.dpmpp_2m), bench.noise(BATCH, float(sigmas[0]))
    times = interleaved({"sample": lambda: sample(denoiser, x, sigmas), "matmul": matmul()}, repeats=3)
    median, mean = bench.error(sample(denoiser, x, sigmas))
    return {
        "parameters": parameter_count(state.params),
        "steps": steps,
        "training_s": round(seconds, 1),
        "trajectories_per_s": round(BATCH / times["sample"], 1),
        "dynamics_error_median": median,
        "dynamics_error_mean": mean,
        "matmul_gflops": round(gflops(times["matmul"]), 1),
    }


def draw(results: list[dict[str, Any]], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.6), layout="constrained", dpi=200)
    axes = figure.subplots(1, 2, sharey=True)
    for name in CANDIDATES:
        rows = [r for r in results if r["network"] == name]
        errors = [r["dynamics_error_median"] for r in rows]
        axes[0].plot(
            [r["training_s"] / 60 for r in rows], errors, "o-", markersize=3, linewidth=1, label=name
        )
        axes[1].plot([rows[-1]["trajectories_per_s"]], errors[-1:], "o", markersize=5, label=name)
    axes[0].set_xlabel("minutes of training", fontsize=8)
    axes[1].set_xlabel("trajectories a second", fontsize=8)
    axes[0].set_ylabel("median dynamics error", fontsize=8)
    for axis in axes:
        axis.set_yscale("log")
        axis.tick_params(which="both", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_xscale("log")
    axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 1.5])
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--figure", help="also draw a PNG to this path")
    args = parser.parse_args()
    bench, results = Bench(), []
    for name in args.only:
        for minutes in args.minutes:
            results.append({"network": name, **measure(bench, *CANDIDATES[name], minutes)})
    print(json.dumps({"results": results, "machine": machine()}, indent=1))
    if args.figure:
        draw(results, args.figure)


if __name__ == "__main__":
    main()
