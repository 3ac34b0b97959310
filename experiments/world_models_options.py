"""The options of `world_models.py`: its configuration, presets, and what it refuses before it trains."""

from dataclasses import dataclass, field

from models import TrajectoryConfig
from options import EvaluationConfig, check_batches, check_counts

import jdp
from jdp.agents.td3_bc import TD3BCConfig
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig
from jdp.synthesis import SamplerConfig
from jdp.world_models.diffusion_step import DiffusionStepConfig
from jdp.world_models.ensemble import EnsembleConfig


@dataclass(frozen=True, kw_only=True)
class Config(TrajectoryConfig):
    """Compare the dynamics errors of world models and trajectory diffusion."""

    seeds: int = 3
    """How often all models and the target policy are trained; intervals are over these."""
    length: int = 100
    """Transitions of a rollout; windows are chained until they are as long."""
    trajectories: int = 100
    """Rollouts of every kind that the simulator judges, for each seed."""
    coefficients: tuple[float, ...] = (1.0, 4.0, 16.0)
    """Guidance coefficients, besides none."""
    action_stds: tuple[float, ...] = (0.0, 0.15, 0.3)
    """Noise on the target policy's actions in the world models."""
    diffusion: DiffuserConfig = field(default_factory=lambda: DiffuserConfig(steps=7_000))
    ensemble: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(epochs=20))
    diffusion_step: DiffusionStepConfig = field(default_factory=lambda: DiffusionStepConfig(steps=15_000))
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)


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
        diffusion_step=DiffusionStepConfig(features=32, blocks=1, steps=300),
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
        sampler=SamplerConfig("dpmpp_2m_sde", steps=64, eta=1.0, sigma_min=0.005),
        ensemble=EnsembleConfig(),
        diffusion_step=DiffusionStepConfig(features=512, steps=500_000),
    ),
}


def check(config: Config) -> None:
    """Raises `UserError` for settings that cannot work, before anything is written."""
    config.check_trajectories()
    check_counts(config, "length", "trajectories")
    check_batches(config, "diffusion", "diffusion_step")
    if not config.coefficients or any(c <= 0 for c in config.coefficients):
        raise jdp.UserError("--coefficients needs one value or more, all above 0")
    if not config.action_stds or any(std < 0 for std in config.action_stds):
        raise jdp.UserError("--action-stds needs one value or more, none below 0")
