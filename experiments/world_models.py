"""Whole trajectories or single steps? Trajectory diffusion against world models, in the simulator.

    python experiments/world_models.py --env hopper-medium

The claim of policy-guided diffusion (arXiv 2404.06356) is that generating whole trajectories keeps a lower
dynamics error than rolling a one-step model out, at the same likelihood under the target policy. For every
seed this trains a target policy, an ensemble of dynamics models, a diffusion model of single steps and a
trajectory diffuser on one dataset, lets each make experience of the target policy, and asks the simulator
how well every generated transition obeys it: by its position in the rollout, and by how likely its actions
are. World models are rolled out with noise of several sizes on the actions; the diffuser is guided with
several coefficients, and its windows are chained on their last state to go on beyond their length.

Everything goes to results/world_models/<dataset>/<run>/: figures/claim.png, report.txt, scores.json. A run
that was cut goes on with --resume. Presets: smoke (a minute), cpu (twenty minutes on two cores), paper.
"""

import dataclasses

import jax
import world_models_report as report
from command_line import parse_preset, run_main
from models import train_diffuser
from opening import agent_options, load, open_job
from options import with_options
from world_models_options import PRESETS, Config, check
from world_models_report import Models

import jdp
from jdp import devices, loops
from jdp.evaluation import Simulator, check_task
from jdp.runs import Job
from jdp.synthesis import TrainedModel
from jdp.types import Method, PyTree
from jdp.world_models.diffusion_step import DiffusionStepConfig
from jdp.world_models.ensemble import EnsembleConfig


def main() -> None:
    config = parse_preset(PRESETS, __doc__ or "")
    compilations = devices.count_compilations()
    check(config)
    config = with_options(config, "the experiment", "diffusion", "diffusion_step")
    data = load(config)
    check_task(data, goals=False)
    sampler = jdp.synthesis.fit_sampler(config.sampler, data, config.horizon)  # fails where no window fits
    config = dataclasses.replace(config, sampler=sampler)
    termination = config.ensemble.termination
    loops.make_world_model(config.ensemble, data, termination=termination, mesh=devices.data_mesh())
    simulator = Simulator(data.spec)  # fails early where no state can be set
    names = ("agents", "ensemble", "diffusion_step", "diffuser", "measure")
    job = open_job(
        "world_models", config, data, f"{config.seeds} seeds of all models", names, windows=config.horizon
    )
    method = jdp.agents.make(config.td3_bc, data.spec)
    states = train_targets(job, method)
    for seed in range(config.seeds):
        report.measure(job, seed, train_seed(job, seed, method, states), simulator)
    report.closing(job, compilations)


def train_targets(job: Job[Config], method: Method) -> PyTree:
    """The target policies of all seeds, stacked: TD3+BC on the dataset."""
    return loops.train_in_rounds(
        method,
        jdp.data.prepared(method.learner.draws, job.data, files=job.files),
        stream=job.config.stream,
        every=job.config.updates,
        **agent_options(job, "target policies", method),
    )


def train_seed(job: Job[Config], seed: int, method: Method, states: PyTree) -> Models:
    """All models of one seed."""
    config = job.config

    def key(name: str) -> jax.Array:
        return jax.random.fold_in(job.keys[name], seed)

    def trained(name: str, settings: EnsembleConfig | DiffusionStepConfig) -> TrainedModel:
        return loops.train_world_model(
            job.data,
            settings,
            key=key(name),
            termination=config.ensemble.termination,
            mesh=job.mesh,
            journal=job.journal,
            phase=f"{name.replace('_', ' ')} {seed}",
        )

    return Models(
        method=method,
        states=jax.tree.map(lambda x: x[seed : seed + 1], states),
        diffuser=train_diffuser(job, key("diffuser"), f"diffuser {seed}"),
        ensemble=trained("ensemble", config.ensemble),
        diffusion_step=trained("diffusion_step", config.diffusion_step),
    )


if __name__ == "__main__":
    run_main(main, spans_processes=True)
