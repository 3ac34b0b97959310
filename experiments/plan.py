"""Planning with diffusion: one planner trained on a dataset, then played in closed loop.

    python experiments/plan.py --planner diffuser --env hopper-medium
    python experiments/plan.py --planner hierarchical --env pointmaze-large

The planner's own settings are --settings.*, which --planner X --help lists. Everything goes to
results/plan/<dataset>/<run>/: scores of the last checkpoint of every seed, the time of a decision, and
pictures: plans in the maze, how a plan comes out of noise, the closed loop as a film. A run that was cut goes
on with --resume; experiments/table.py makes tables of all runs. Presets: smoke (two minutes, for the
plumbing), cpu (minutes on two cores), paper (the papers' sizes, for an accelerator); any flag beats the
preset.
"""

from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from closed_loop import AnyConfig, PlayedConfig, closing, evaluate_guided, open_method, presets
from command_line import run_main
from methods import method_command
from opening import save_figure
from options import refuse_stream

import jdp
from jdp import devices, loops, planners, plotting, registry
from jdp.loops.self_improvement import Imagination
from jdp.runs import Job
from jdp.types import Method, PyTree

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Config(PlayedConfig[T]):
    """Train a planner and play it in closed loop."""

    planner: str = "diffuser"
    """The algorithm."""


def main() -> None:
    entry, config = method_command("planner", "diffuser", Config, __doc__ or "", presets)
    compilations = devices.count_compilations()
    rounds = getattr(config.settings, "rounds", 0)
    if rounds:
        refuse_stream(config, f"{entry.name} mixes the dataset with its own plans on the devices")
    job, method = open_method("plan", "planner", entry, config)
    states = train(job, method)
    if registry.takes(entry, "trace"):  # a planner can do without
        draw_denoising(job, entry.name, states)
    found = evaluate_guided(job, entry.name, method, states)
    closing(job, entry, found, ("planner", *(f"round_{i + 1}" for i in range(rounds))), compilations)


def train(job: Job[AnyConfig], method: Method) -> PyTree:
    """All seeds on the dataset; a planner that imagines then goes on with its own plans beside the data."""
    config, settings = job.config, job.config.settings
    rows = jdp.data.prepared(method.learner.draws, job.data, files=job.files)
    shared = {
        "seeds": config.seeds,
        "batch_size": config.batch_size,
        "mesh": job.mesh,
        "journal": job.journal,
    }
    states = loops.train(
        method.learner,
        rows,
        key=job.keys["train"],
        updates=config.updates,
        stream=config.stream,
        phase="planner",
        **shared,
    )
    if method.imagine is None:
        return states
    return loops.improve(
        method,
        states,
        rows,
        job.data,
        Imagination(settings.plans, settings.imagined_share),
        key=job.keys["adapt"],
        rounds=settings.rounds,
        updates=settings.steps(config.updates)[0],
        **shared,
    )


def draw_denoising(job: Job[AnyConfig], name: str, states: PyTree) -> None:
    """denoising.png: how a plan of the first seed, between two states of the data, comes out of noise."""
    data, spec = job.data, job.data.spec
    rows = [len(data) // 3, 2 * len(data) // 3]
    observation = jnp.asarray(data.observations[rows[:1]])
    goal = jnp.asarray(data.observations[rows[1:]][:, list(spec.goal)])
    state = jax.tree.map(lambda x: x[0], states)
    key = job.keys["pictures"]
    chain, sigmas = planners.denoising(job.config.settings, spec, key, state, observation, goal)
    title = f"{name}, {data.origin.name}: a plan out of noise"
    save_figure(job, "denoising", plotting.denoising_of(data, np.asarray(chain)[:, 0], sigmas, title=title))


if __name__ == "__main__":
    run_main(main, spans_processes=True)
