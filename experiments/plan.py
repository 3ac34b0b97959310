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
from common import choose, option, parse, run_main, use_compilation_cache
from control import (
    ControlConfig,
    closing,
    evaluate,
    open_job,
    rows_for,
    train_all,
    with_steps,
)
from job import Job
from planning_presets import presets

import jdp
from jdp import training
from jdp.data import Hindsight
from jdp.planners import PLANNERS
from jdp.policies import follow

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
        preset: Config(planner=name, preset=preset, **values)
        for preset, values in presets(name, option("--env") or Config.env).items()
    }
    config = parse(defaults, lambda: device, __doc__ or "", kind)
    use_compilation_cache()
    compilations = training.count_compilations()
    job = open_job("plan", config, f"planner {name}", fit_to_data)
    planner = jdp.planners.make(job.config.settings, job.data.spec)
    states = train_planner(job, planner)
    draw_denoising(job, planner, states)
    found = evaluate(job, follow(planner), states, planner.replan_every)
    phases = ("planner", *(f"round {i + 1}" for i in range(rounds_of(job.config))))
    closing(job, found, phases, compilations)


def fit_to_data(config: Config, data: Any) -> Config:
    """Learning rates over the updates asked for; and what the planner refuses, before anything is written."""
    settings = with_steps(config.settings, config.updates)
    jdp.planners.make(settings, data.spec)
    return dataclasses.replace(config, settings=settings)


def rounds_of(config: Config) -> int:
    return getattr(config.settings, "rounds", 0)


def train_planner(job: Job, planner: Any) -> Any:
    """All seeds on the dataset; a planner that imagines then goes on with its own plans among the data."""
    rows = rows_for(job, planner.offsets)
    hindsight = getattr(job.config.settings, "hindsight", Hindsight())
    return train_all(job, "planner", planner, rows, hindsight)


def draw_denoising(job: Job, planner: Any, states: Any) -> None:
    """denoising.png: the first seed's first plan, from the noise it begins with."""


if __name__ == "__main__":
    run_main(main)
