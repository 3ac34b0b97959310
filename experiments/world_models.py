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

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import world_models_report as report
from common import parse, run_main, use_compilation_cache
from job import Job, check_task, load, open_run, opening
from models import check_world_model, train_by_steps, train_diffuser, train_ensemble
from options import RunConfig, check_positive, with_options
from phases import train_agents

import jdp
from jdp import devices, runs
from jdp.agents import TD3BCConfig
from jdp.evaluation import Simulator
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig
from jdp.synthesis import GuidanceConfig, SamplerConfig
from jdp.world_models import DiffusionStepConfig, EnsembleConfig


@dataclass(frozen=True)
class EvaluationConfig:
    """Scores of the target policies."""

    episodes: int = 10
    """Episodes of every seed."""


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Compare the dynamics errors of world models and trajectory diffusion."""

    seeds: int = 3
    """How often all models and the target policy are trained; intervals are over these."""
    horizon: int = 32
    """Steps of a diffused window."""
    length: int = 100
    """Transitions of a rollout; windows are chained until they are as long."""
    trajectories: int = 100
    """Rollouts of every kind that the simulator judges, for each seed."""
    coefficients: tuple[float, ...] = (1.0, 4.0, 16.0)
    """Guidance coefficients, besides none."""
    action_stds: tuple[float, ...] = (0.0, 0.15, 0.3)
    """Noise on the target policy's actions in the world models."""
    updates: int = 10_000
    """Of the target policies, TD3+BC on the dataset."""
    batch_size: int = 256
    """Transitions in an agent's minibatch."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig("residual_unet", 48, 3))
    diffusion: DiffuserConfig = field(default_factory=lambda: DiffuserConfig(steps=7_000))
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    ensemble: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(epochs=20))
    diffusion_step: DiffusionStepConfig = field(default_factory=lambda: DiffusionStepConfig(steps=15_000))
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


PRESETS = {
    "smoke": Config(
        preset="smoke",
        seeds=2,
        horizon=8,
        length=12,
        trajectories=8,
        coefficients=(1.0,),
        action_stds=(0.0,),
        updates=200,
        network=NetworkConfig("residual_unet", 8, 2),
        diffusion=DiffuserConfig(steps=200, batch_size=32),
        sampler=SamplerConfig(steps=6),
        ensemble=EnsembleConfig(members=3, elites=2, hidden=(32, 32), decay=(0.0,), epochs=1),
        diffusion_step=DiffusionStepConfig(hidden=32, blocks=1, steps=300),
        td3_bc=TD3BCConfig(hidden=(32, 32)),
        evaluation=EvaluationConfig(episodes=1),
    ),
    "cpu": Config(),
    "paper": Config(
        preset="paper",
        seeds=5,
        trajectories=500,
        updates=500_000,
        network=NetworkConfig("unet", 1024, 3),
        diffusion=DiffuserConfig(steps=100_000, batch_size=32, ema=0.9995),
        sampler=SamplerConfig("dpmpp_2m_sde", steps=32, sigma_max=10.0, sigma_min=0.005),
        ensemble=EnsembleConfig(),
        diffusion_step=DiffusionStepConfig(hidden=512, steps=500_000),
    ),
}


@dataclass(frozen=True)
class Models:
    """What one seed has trained: functions and states."""

    agent: Any
    agent_state: Any  # [1, ...]: one agent, stacked
    ensemble: tuple[Any, Any]
    diffusion_step: tuple[Any, Any]
    diffuser: tuple[Any, Any, Any]  # with the normaliser


def main() -> None:
    device = "cpu" if jax.default_backend() == "cpu" else "paper"
    config = parse(PRESETS, lambda: device, __doc__ or "")
    use_compilation_cache()
    compilations = devices.count_compilations()
    check(config)
    config = with_options(config, "the experiment", "diffusion", "diffusion_step")
    data = load(config)
    check_task(data)
    jdp.data.windows(data, config.horizon)  # fails early where no window fits
    check_world_model(config, "ensemble", data)
    simulator = Simulator(str(data.spec.env_id))  # fails early where no state can be set
    mesh = devices.data_mesh()
    for name, size, parts in (
        ("--batch-size", config.batch_size, 1),
        ("--diffusion.batch-size", config.diffusion.batch_size, config.diffusion.accumulate),
        ("--diffusion-step.batch-size", config.diffusion_step.batch_size, 1),
    ):
        devices.check_divisible(size, mesh, name, parts)
    opening(config, data, f"{config.seeds} seeds of all models")
    run = open_run("world_models", config, data)
    names = ("agents", "ensemble", "diffusion_step", "diffuser", "measure")
    job = Job(config, data, run, mesh, jdp.types.named_keys(jax.random.key(config.seed), *names))
    agent, states = train_targets(job)
    for seed in range(config.seeds):
        models = train_seed(job, seed, agent, states)
        report.measure(job, seed, models, simulator)
    report.closing(job, compilations)


def check(config: Config) -> None:
    """Raises `UserError` for settings that cannot work, before anything is written."""
    for sink in config.log:
        runs.check_sink(sink)
    check_positive(
        {
            "--seeds": config.seeds,
            "--length": config.length,
            "--trajectories": config.trajectories,
            "--updates": config.updates,
            "--batch-size": config.batch_size,
            "--diffusion.steps": config.diffusion.steps,
            "--diffusion.batch-size": config.diffusion.batch_size,
        }
    )
    if config.horizon < 2:
        raise jdp.UserError(f"--horizon is {config.horizon}: it must be at least 2")
    if not config.coefficients or any(c <= 0 for c in config.coefficients):
        raise jdp.UserError("--coefficients needs one value or more, all above 0")
    if not config.action_stds or any(std < 0 for std in config.action_stds):
        raise jdp.UserError("--action-stds needs one value or more, none below 0")
    jdp.synthesis.check_guidance(config.guidance, config.sampler.name)


def train_targets(job: Job) -> tuple[Any, Any]:
    """The target policies of all seeds, stacked: TD3+BC on the dataset."""
    config = job.config
    agent = jdp.agents.make(config.td3_bc, job.data.spec)
    real = jdp.data.transitions(job.data)
    pool = jdp.synthesis.pool(real)
    states = train_agents(
        job,
        "target policies",
        agent,
        lambda begin, states: pool,
        sample=jax.tree.map(jnp.asarray, real),
        updates=config.updates,
        every=config.updates,
    )
    return agent, states


def train_seed(job: Job, seed: int, agent: Any, states: Any) -> Models:
    """All models of one seed."""

    def key(name: str) -> jax.Array:
        return jax.random.fold_in(job.keys[name], seed)

    step_config, ensemble_config = job.config.diffusion_step, job.config.ensemble
    return Models(
        agent=agent,
        agent_state=jax.tree.map(lambda x: x[seed : seed + 1], states),
        ensemble=train_ensemble(job, f"ensemble {seed}", ensemble_config, key("ensemble")),
        diffusion_step=train_by_steps(job, f"diffusion step {seed}", step_config, key("diffusion_step")),
        diffuser=train_diffuser(job, f"diffuser {seed}", key("diffuser")),
    )


if __name__ == "__main__":
    run_main(main, spans_processes=True)
