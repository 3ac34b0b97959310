"""Updates and plans of Diffuser in the published size, beside the times of a peer, printed as JSON.

    python benchmarks/planners.py [--updates 10] [--repeats 7]

The work is that of hopper: 11 observations, 3 actions, horizon 32, the bundled hopper-medium, the published
U-Net (32, 64, 128, 256; 3,956,302 parameters at 14 channels) and its half as the critic. An update is a
batch of 64: its draw, gradient, Adam and average, in the chunk of the fit loop. A plan is of one
observation, the best of 64 candidates; guided, it takes one gradient of the critic at each noised plan.
Weights are untrained: times do not depend on them. Our planner shows its network the 14 channels, a flag
beside each, and the ends of the plan as a condition; "U-Net" is the network alone, as the peer's.

The last two lines are the default of experiments/plan.py on two cores (--preset cpu), without counterpart.

The target is half of the peer's time. The peer, CleanDiffuser, was measured on another day, on a machine
of the same kind, on 2 quiet cores; the rate of the matrix product, timed in turns with the work, says how
quiet ours was.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import gflops, interleaved, machine, matmul

import jdp
from jdp import loops
from jdp.data import Episodes, draw_segments
from jdp.data.segments import SegmentRows, segment_rows
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.networks import NetworkConfig, ValueNetworkConfig, parameter_count
from jdp.planners import CriticConfig, DiffuserPlannerConfig, ModelConfig, SamplingConfig, diffuser
from jdp.planners.models import model
from jdp.planners.scale import fit_scale
from jdp.types import Array, Metrics, PyTree, Segments

BATCH, HORIZON, TARGET = 64, 32, 0.5
NETWORK = NetworkConfig("diffuser_unet", 32, 4)
DDPM = SamplingConfig(sampler="ddpm", steps=20, warm_steps=0, sigma_max=None)
PUBLISHED = DiffuserPlannerConfig(
    horizon=HORIZON,
    candidates=64,
    guidance_point="noised",
    guidance_steps=1,
    model=ModelConfig(NETWORK, formulation="ddpm_x0"),
    critic=CriticConfig(ValueNetworkConfig("half_unet", 32, 4)),
    sampling=DDPM,
)
PLANS = {
    "plan, DDPM 20 guided": PUBLISHED,
    "plan, DDPM 20 unguided": replace(PUBLISHED, guidance=0.0),
    "plan, DDIM 5 guided": replace(PUBLISHED, sampling=replace(DDPM, sampler="euler", steps=5)),
}
PEER = {  # seconds, of SOURCE
    "update, U-Net": 0.196,
    "update, denoiser": 0.196,
    "update, denoiser and critic": 0.310,
    "plan, DDPM 20 guided": 2.35,
    "plan, DDPM 20 unguided": 1.22,
    "plan, DDIM 5 guided": 0.66,
}
SOURCE = (
    "CleanDiffuser main 05f17fc, unmodified classes, torch 2.13.0+cpu, float32, 2 quiet cores, AMD EPYC; "
    "wall medians, measured on another day, on a machine of the same kind"
)


def as_rows(segments: Segments) -> Array:
    return jnp.concatenate([segments.observation, segments.action], axis=-1)


def update_unet(key: Array, state: PyTree, batch: Segments) -> tuple[PyTree, Metrics]:
    """Of the network alone, 14 channels."""
    return trajectory_diffuser(NETWORK, DiffuserConfig()).update(key, state, as_rows(batch))


def update_denoiser(key: Array, state: PyTree, batch: Segments) -> tuple[PyTree, Metrics]:
    """Of the planner's denoiser, without its critic."""
    x0, none = as_rows(batch), jnp.zeros((BATCH, 0))
    known = jnp.zeros(x0.shape, bool).at[:, 0, : batch.observation.shape[-1]].set(True)
    return model(PUBLISHED.model).update(key, state, x0, none, known, jnp.ones_like(x0))


class Fit:
    """The chunk of the fit loop as a function to time: `count` updates, which go on from the last."""

    def __init__(
        self, update: Callable, draw: Callable, state: PyTree, rows: SegmentRows, count: int
    ) -> None:
        self.program = loops.chunk_program(update, draw, None, 0)
        self.state, self.rows, self.count = state, rows, jnp.int32(count)

    def __call__(self) -> PyTree:
        self.state, metrics = self.program(self.state, self.rows, jax.random.key(1), jnp.int32(0), self.count)
        return self.state, metrics


def normalised(rows: SegmentRows) -> SegmentRows:
    scale = fit_scale(rows)
    return rows._replace(observation=scale.observation(rows.observation), action=scale.action(rows.action))


def updates(data: Episodes, rows: SegmentRows, count: int) -> tuple[dict[str, Callable], dict[str, int]]:
    """The three kinds of updates, and how many parameters each trains."""
    key, planner = jax.random.key(0), diffuser(PUBLISHED, data.spec)
    draw = draw_segments(BATCH, planner.offsets)
    channels = data.spec.observation_dim + data.spec.action_dim
    x0 = jnp.zeros((1, HORIZON, channels))
    plain = trajectory_diffuser(NETWORK, DiffuserConfig()).init(key, x0)
    shown = model(PUBLISHED.model).init(key, x0, jnp.zeros((1, 0)))
    both = planner.init(key, rows)
    sizes = {
        "update, U-Net": parameter_count(plain.params),
        "update, denoiser": parameter_count(shown.params),
        "update, denoiser and critic": parameter_count((both.model.params, both.critic.params)),
    }
    return {
        "update, U-Net": Fit(update_unet, draw, plain, normalised(rows), count),
        "update, denoiser": Fit(update_denoiser, draw, shown, normalised(rows), count),
        "update, denoiser and critic": Fit(planner.update, draw, both, rows, count),
    }, sizes


def plans(config: DiffuserPlannerConfig, data: Episodes, rows: SegmentRows) -> tuple[Callable, Callable]:
    """A plan from nothing and one from the last plan, of one observation."""
    planner = diffuser(config, data.spec)
    state = planner.init(jax.random.key(0), rows)
    observation, goal = rows.observation[:1], jnp.zeros((1, 0))
    plan, key = jax.jit(planner.plan), jax.random.key(2)
    nothing, _ = planner.start(observation)
    carry, _ = plan(key, state, nothing, observation, goal)
    return (lambda: plan(key, state, nothing, observation, goal)), (
        lambda: plan(key, state, carry, observation, goal)
    )


def cpu_preset() -> DiffuserPlannerConfig:
    """What experiments/plan.py plans with on a CPU; the experiments have a module `common` of their own."""
    folder, ours = str(Path(__file__).resolve().parents[1] / "experiments"), sys.modules.pop("common")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("planning_presets").presets("diffuser", "hopper-medium")["cpu"][
            "settings"
        ]
    finally:
        sys.path.remove(folder)
        sys.modules["common"] = ours


def line(name: str, seconds: float) -> dict[str, Any]:
    found = {"work": name, "seconds": round(seconds, 4)}
    if name not in PEER:
        return found
    ratio = seconds / PEER[name]
    return {**found, "peer_seconds": PEER[name], "ratio": round(ratio, 2), "within_target": ratio <= TARGET}


def main() -> None:
    parser = argparse.ArgumentParser(description="updates and plans of Diffuser")
    parser.add_argument("--updates", type=int, default=10, help="in one timed call")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    data = jdp.data.load("hopper-medium", source="bundled")
    rows = jax.tree.map(jnp.asarray, segment_rows(data, HORIZON))
    fits, parameters = updates(data, rows, args.updates)
    works: dict[str, Callable] = {
        **fits,
        **{name: plans(config, data, rows)[0] for name, config in PLANS.items()},
    }
    works["plan, cpu preset, cold"], works["plan, cpu preset, warm"] = plans(cpu_preset(), data, rows)
    times = interleaved({**works, "matmul": matmul()}, args.repeats)
    rate = gflops(times.pop("matmul"))
    found = [line(name, t / args.updates if name in fits else t) for name, t in times.items()]
    print(
        json.dumps(
            {
                "machine": machine(),
                "matmul_gflops": round(rate, 1),
                "parameters": parameters,
                "peer": SOURCE,
                "target_ratio": TARGET,
                "results": found,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
