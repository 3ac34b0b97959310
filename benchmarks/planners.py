"""Updates and plans of Diffuser in the published size, printed as JSON.

    python benchmarks/planners.py [--updates 10] [--repeats 7]

The work is that of hopper: 11 observations, 3 actions, horizon 32, the bundled hopper-medium, the published
U-Net (32, 64, 128, 256; 3,956,302 parameters at 14 channels) and its half as the critic. An update is a
batch of 64: its draw, gradient, Adam and average, in the chunk of the fit loop. A plan is of one
observation, the best of 64 candidates; guided, it takes one gradient of the critic at each noised plan.
Weights are untrained: times do not depend on them. Our planner shows its network the 14 channels, a flag
beside each, and the ends of the plan as a condition; "U-Net" is the network alone.

The last two lines are the default of experiments/plan.py on two cores (--preset cpu); their operations are
not counted. A plan's are its calls of the U-Net and of the critic, an update's all that it does.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from common import gflops, interleaved, machine, matmul, operations, work

import jdp
from jdp import loops, registry
from jdp.data import Episodes, SegmentDraw, batches
from jdp.data.segments import SegmentRows
from jdp.learning.diffuser import DiffuserConfig, trajectory_diffuser
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import ModelConfig, model
from jdp.learning.scale import fit_scale
from jdp.networks import NetworkConfig, ValueNetworkConfig, make, make_value, parameter_count
from jdp.planners import SamplingConfig
from jdp.planners.diffuser import DiffuserPlannerConfig, diffuser
from jdp.types import Array, Metrics, PyTree, Segments

BATCH, HORIZON, CHANNELS, KEY = 64, 32, 14, jax.random.key(0)
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


def as_rows(segments: Segments) -> Array:
    return jnp.concatenate([segments.observation, segments.action], axis=-1)


def update_unet(key: Array, state: PyTree, batch: Segments) -> tuple[PyTree, Metrics]:
    """Of the network alone, 14 channels."""
    return trajectory_diffuser(NETWORK, DiffuserConfig(), HORIZON).learner.update(key, state, as_rows(batch))


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
        self.state, metrics = self.program(self.state, *self.arguments())
        return self.state, metrics

    def arguments(self) -> tuple:
        return self.rows, jax.random.key(1), jnp.int32(0), self.count

    def operations(self) -> float:
        """Of one update: XLA counts the loop's body once."""
        return operations(self.program, self.state, *self.arguments())


def normalised(rows: SegmentRows) -> SegmentRows:
    scale = fit_scale(rows)
    return rows._replace(observation=scale.observation(rows.observation), action=scale.action(rows.action))


def updates(
    data: Episodes, draw: SegmentDraw, rows: SegmentRows, count: int
) -> tuple[dict[str, Fit], dict[str, int]]:
    """The three kinds of updates, and how many parameters each trains."""
    planner, drawn = diffuser(PUBLISHED, data.spec), batches(draw, BATCH)
    x0 = jnp.zeros((1, HORIZON, CHANNELS))
    plain = trajectory_diffuser(NETWORK, DiffuserConfig(), HORIZON).learner.init(KEY, x0)
    shown = model(PUBLISHED.model).init(KEY, x0, jnp.zeros((1, 0)))
    both = planner.learner.init(KEY, rows)
    sizes = {
        "update, U-Net": parameter_count(plain.params),
        "update, denoiser": parameter_count(shown.params),
        "update, denoiser and critic": parameter_count((both.model.params, both.critic.params)),
    }
    return {
        "update, U-Net": Fit(update_unet, drawn, plain, normalised(rows), count),
        "update, denoiser": Fit(update_denoiser, drawn, shown, normalised(rows), count),
        "update, denoiser and critic": Fit(planner.learner.update, drawn, both, rows, count),
    }, sizes


def plans(config: DiffuserPlannerConfig, data: Episodes, rows: SegmentRows) -> tuple[Callable, Callable]:
    """A decision from nothing and one from the last plan, of one observation; each draws a plan."""
    planner = diffuser(config, data.spec)
    state = planner.learner.init(KEY, rows)
    observation, goal = rows.observation[:1], jnp.zeros((1, 0))
    act, key = jax.jit(planner.policy.act), jax.random.key(2)
    nothing = planner.policy.init(observation)
    carry, _ = act(key, state, nothing, observation, goal)
    return (lambda: act(key, state, nothing, observation, goal)), (
        lambda: act(key, state, carry, observation, goal)
    )


def cpu_preset(name: str = "hopper-medium") -> DiffuserPlannerConfig:
    """What experiments/plan.py plans with on a CPU, in the task of the dataset `name`."""
    presets = registry.entry("planner", "diffuser").presets
    assert presets is not None
    return presets(registry.task_of(name))["cpu"].settings


def plan_operations(config: DiffuserPlannerConfig) -> float:
    """Of the networks in a plan: at each level a call on the candidates and, guided, the critic's gradient.

    The critic judges the candidates once more at the end.
    """
    count = config.candidates
    x, level = jnp.zeros((count, HORIZON, CHANNELS)), jnp.zeros(count)
    shown, ends = jnp.zeros((count, HORIZON, 2 * CHANNELS)), jnp.zeros((count, 2 * CHANNELS))
    net, judge = make(config.model.network), make_value(config.critic.network)
    params, weights = net.init(KEY, shown, level, ends), judge.init(KEY, x, level)

    def value(x: Array, weights: PyTree) -> Array:
        return judge.apply(weights, x, level).sum()

    each = operations(net.apply, params, shown, level, ends)
    if config.guidance:
        each += operations(jax.grad(value), x, weights)
    return config.sampling.steps * each + operations(value, x, weights)


def main() -> None:
    parser = argparse.ArgumentParser(description="updates and plans of Diffuser")
    parser.add_argument("--updates", type=int, default=10, help="in one timed call")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    data = jdp.data.load("hopper-medium", source="bundled")
    draw = diffuser(PUBLISHED, data.spec).learner.draws
    assert isinstance(draw, SegmentDraw)
    rows = jax.tree.map(jnp.asarray, draw.prepare(data))
    fits, parameters = updates(data, draw, rows, args.updates)
    works: dict[str, Callable] = {
        **fits,
        **{name: plans(config, data, rows)[0] for name, config in PLANS.items()},
    }
    works["plan, cpu preset, cold"], works["plan, cpu preset, warm"] = plans(cpu_preset(), data, rows)
    times = interleaved({**works, "matmul": matmul()}, args.repeats)
    rate = gflops(times.pop("matmul"))
    counts = {name: fit.operations() for name, fit in fits.items()}
    counts |= {name: plan_operations(config) for name, config in PLANS.items()}
    found = [
        work(name, t / args.updates if name in fits else t, counts[name], rate)
        if name in counts
        else {"work": name, "seconds": round(t, 4)}
        for name, t in times.items()
    ]
    shown = {"machine": machine(), "matmul_gflops": round(rate, 1), "parameters": parameters}
    print(json.dumps({**shown, "results": found}, indent=1))


if __name__ == "__main__":
    main()
