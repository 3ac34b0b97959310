"""Planning with diffusion: one planner trained on a dataset, then played in closed loop.

    python experiments/plan.py --planner diffuser --env hopper-medium
    python experiments/plan.py --planner hierarchical --env pointmaze-large

Planners: diffuser, decision_diffuser, hierarchical, veteran, adapt_diffuser, graph_guided. The planner's own
settings are --settings.*, which --planner X --help lists. Everything goes to results/plan/<dataset>/<run>/:
scores of the last checkpoint of every seed, the time of a decision, and pictures: plans in the maze, how a
plan comes out of noise, the closed loop as a film. A run that was cut goes on with --resume;
experiments/planning_table.py makes one table of all runs. Presets: smoke (two minutes, for the plumbing),
cpu (minutes on two cores), paper (the papers' sizes, for an accelerator); any flag beats the preset.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from adapt import adapt
from common import choose, option, parse, run_main, use_compilation_cache
from control import (
    ControlConfig,
    closing,
    evaluate,
    figures,
    method_of,
    one,
    open_job,
    rows_for,
    train_all,
    with_steps,
)
from job import Job
from options import refuse_stream, with_options
from planning_presets import presets

import jdp
from jdp import devices, plotting
from jdp.data import Hindsight, segment_rows
from jdp.planners import PLANNERS, AdaptDiffuserConfig
from jdp.planners.adapt_diffuser import trained_for
from jdp.planners.trajectory import plan_schedule
from jdp.policies import follow
from jdp.tasks import maze_of

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Config(ControlConfig[T]):
    """Train a planner and play it in closed loop."""

    planner: str = "diffuser"
    """The algorithm."""


def main() -> None:
    name = choose("--planner", PLANNERS, "diffuser")
    kind: Any = Config[PLANNERS[name]]  # type: ignore[misc]
    device = "cpu" if jax.default_backend() == "cpu" else "paper"
    defaults = {
        preset: Config(planner=name, preset=preset, **values)  # type: ignore[arg-type]
        for preset, values in presets(name, option("--env") or Config.env).items()
    }
    config = parse(defaults, lambda: device, __doc__ or "", kind)
    use_compilation_cache()
    compilations = devices.count_compilations()
    job = open_job("plan", config, f"planner {name}", fit_to_data)
    planner = jdp.planners.make(job.config.settings, job.data.spec)
    states = train_planner(job, planner)
    draw_denoising(job, states)
    found = evaluate(job, follow(planner), states, planner.replan_every)
    rounds = range(getattr(job.config.settings, "rounds", 0))
    closing(job, found, ("planner", *(f"round_{i + 1}" for i in rounds)), compilations)


def fit_to_data(config: Config, data: Any) -> Config:
    """Learning rates over the updates asked for; and what the planner refuses, before anything is written."""
    config = with_options(config, f"planner {config.planner}", "settings")
    settings = with_steps(config.settings, config.updates)
    if getattr(settings, "rounds", 0):
        refuse_stream(config, "adapt_diffuser mixes the dataset with its own plans on the devices")
    if isinstance(settings, AdaptDiffuserConfig):
        settings = trained_for(settings, config.updates)
    planner = jdp.planners.make(settings, data.spec)
    rows = segment_rows(data, planner.offsets[-1] + 1)
    observation, goal = jnp.zeros((1, data.spec.observation_dim)), jnp.zeros((1, len(data.spec.goal)))

    def first_plan(key: jax.Array) -> Any:
        return planner.plan(key, planner.init(key, rows), planner.start(observation)[0], observation, goal)

    jax.eval_shape(first_plan, jax.random.key(0))
    return dataclasses.replace(config, settings=settings)


def train_planner(job: Job, planner: Any) -> Any:
    """All seeds on the dataset; a planner that imagines then goes on with its own plans beside the data."""
    rows = rows_for(job, planner.offsets)
    hindsight = getattr(job.config.settings, "hindsight", Hindsight())
    states = train_all(job, "planner", planner, rows, hindsight)
    return states if planner.imagine is None else adapt(job, planner, states, rows, hindsight)


def pictured(settings: Any) -> Any:
    """`settings` of a planner whose plans stop at one level after another (see `staircase`)."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if item.name == "sampling":
            changes["sampling"] = dataclasses.replace(value, sampler="staircase", steps=20, warm_steps=0)
        elif item.name == "diffuser":
            changes["diffuser"] = pictured(value)
        elif item.name == "candidates":
            changes["candidates"] = 1
    return dataclasses.replace(settings, **changes)


def draw_denoising(job: Job, states: Any) -> None:
    """denoising.png: how a plan of the first seed, between two states of the data, comes out of noise."""
    spec, settings = job.data.spec, pictured(job.config.settings)
    inner = getattr(settings, "diffuser", settings)
    model = getattr(inner, "model", None) or inner.high
    if model.formulation in ("consistency", "shortcut"):
        return  # they make no such steps
    planner, sigmas = jdp.planners.make(settings, spec), plan_schedule(inner.sampling, model.formulation)
    rows = [len(job.data) // 3, 2 * len(job.data) // 3]
    observation = jnp.repeat(jnp.asarray(job.data.observations[rows[:1]]), len(sigmas), axis=0)
    goal = jnp.repeat(jnp.asarray(job.data.observations[rows[1:]][:, list(spec.goal)]), len(sigmas), axis=0)
    carry = planner.start(observation)[0]
    plan = jax.jit(planner.plan)(job.keys["pictures"], one(states, 0), carry, observation, goal)[1]
    chain = np.asarray(plan.subgoal if hasattr(settings, "high") else plan.observation)
    maze = maze_of(spec.env_id) if spec.goal else None
    if maze is None:
        chain = (chain - job.data.observations.mean(0)) / (job.data.observations.std(0) + 1e-6)
    else:
        chain = chain[..., list(spec.goal)]
    title = f"{method_of(job.config)}, {job.data.origin.name}: a plan out of noise"
    plotting.denoising(maze, chain, list(map(float, sigmas)), title=title).savefig(
        figures(job) / "denoising.png"
    )


if __name__ == "__main__":
    run_main(main, spans_processes=True)
