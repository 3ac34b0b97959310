"""The options of `pgd_d4rl.py`: its configuration, presets, and what it refuses before it trains."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from methods import fitted
from models import TrajectoryConfig, WorldModelConfig
from options import EvaluationConfig, check_batches, check_counts

import jdp
from jdp import registry, synthesis
from jdp.agents.iql import IQLConfig
from jdp.agents.td3_bc import TD3BCConfig
from jdp.data import Episodes
from jdp.evaluation import check_task
from jdp.learning.diffuser import DiffuserConfig
from jdp.networks import NetworkConfig
from jdp.synthesis import SamplerConfig
from jdp.world_models.ensemble import EnsembleConfig

Arm = Literal["dataset", "unguided", "guided", "world_model"]


@dataclass(frozen=True)
class SyntheticConfig:
    """The synthetic sets of all arms but the first."""

    trajectories: int = 2_000
    """Trajectories in a set, for each agent seed; a set has at most this times horizon transitions."""
    every: int = 5_000
    """Agent updates between two regenerations; the first set is of the dataset's own behaviour."""
    share: float = 0.9375
    """Share of synthetic transitions in a batch; the rest are real."""
    from_data: bool = False
    """Begin diffused trajectories at states of the dataset instead of wholly from noise."""
    action_std: float = 0.1
    """Noise on the policy's actions in the world model; 0.1 is the exploration of TD3."""


@dataclass(frozen=True)
class CheckedConfig(EvaluationConfig):
    """Scores in the simulator, at each regeneration and of the last checkpoint, and checks of the sets."""

    trajectories: int = 150
    """Generated trajectories of every kind that the simulator judges."""


@dataclass(frozen=True, kw_only=True)
class Config(TrajectoryConfig, WorldModelConfig):
    """Train on data, on unguided, policy-guided and world-model experience, and compare."""

    arms: tuple[Arm, ...] = ("dataset", "unguided", "world_model", "guided")
    """Which arms to run."""
    agent: Literal["td3_bc", "iql"] = "td3_bc"
    """The offline-RL algorithm of all arms."""
    updates: int = 20_000
    """Agent updates (of TD3+BC: 2 critic steps and 1 actor step each)."""
    ensemble: EnsembleConfig = field(default_factory=lambda: EnsembleConfig(epochs=20))
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)
    iql: IQLConfig = field(default_factory=IQLConfig)
    evaluation: CheckedConfig = field(default_factory=CheckedConfig)
    diffuser: Path | None = None
    """A run directory whose trained diffuser is used again, or a model that comes with jdp."""
    save_synthetic: bool = False
    """Write the last synthetic set of every arm as D4RL-layout HDF5 (and as Minari where it can be)."""


PRESETS = {
    "smoke": Config(
        preset="smoke",
        seeds=2,
        horizon=16,
        updates=400,
        network=NetworkConfig("residual_unet", 16, 2),
        diffusion=DiffuserConfig(steps=600),
        sampler=SamplerConfig(steps=10, batch=128),
        ensemble=EnsembleConfig(members=3, elites=2, hidden=(32, 32), decay=(0.0, 0.0, 0.0), epochs=2),
        synthetic=SyntheticConfig(trajectories=128, every=200),
        td3_bc=TD3BCConfig(hidden=(64, 64)),
        iql=IQLConfig(hidden=(64, 64), steps=400),
        evaluation=CheckedConfig(episodes=2, trajectories=30),
    ),
    "cpu": Config(iql=IQLConfig(steps=20_000)),
    # The reference's network and agents, and a sampler that was measured against the reference's
    # (benchmarks/sampling.py). The diffuser's 100,000 steps are 45 PFLOP; 49 regenerations for three
    # seeds are 360 PFLOP unguided and 1,080 guided: hours on one accelerator (by count, not measured).
    "paper": Config(
        preset="paper",
        updates=500_000,
        network=NetworkConfig("unet", 1024, 3),
        diffusion=DiffuserConfig(steps=100_000, batch_size=32, ema=0.9995),
        sampler=SamplerConfig("dpmpp_2m_sde", steps=64, eta=1.0, sigma_min=0.005, batch=1024),
        ensemble=EnsembleConfig(),
        synthetic=SyntheticConfig(trajectories=8_192, every=10_000),
        iql=IQLConfig(steps=500_000),
    ),
}


def check(config: Config) -> None:
    """Raises `UserError` for settings that cannot work, before anything is written."""
    config.check_trajectories()
    check_counts(config, "evaluation.trajectories", "synthetic.every", "synthetic.trajectories")
    check_batches(config, "diffusion")
    if not 0 <= config.synthetic.share <= 1:
        raise jdp.UserError(f"--synthetic.share is {config.synthetic.share}: it must lie between 0 and 1")
    if not config.arms or len(set(config.arms)) != len(config.arms):
        raise jdp.UserError("--arms needs at least one arm, and each at most once")


def fit_to_data(config: Config, data: Episodes) -> Config:
    """Fills in what depends on the dataset, and refuses what could not be trained or simulated."""
    check_task(data, goals=False)
    sampler = synthesis.fit_sampler(config.sampler, data, config.horizon)  # fails where no window fits
    config = dataclasses.replace(config, sampler=sampler)
    if "world_model" in config.arms:
        config.check_world_model(data)
    name = config.agent
    entry = registry.entry("agent", name)
    settings = fitted(entry, getattr(config, name), data, config.updates, name)
    return dataclasses.replace(config, **{name: settings})
