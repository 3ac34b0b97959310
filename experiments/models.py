"""World models and trajectory diffusers of the scripts: their options, checks and training."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
from options import RunConfig, check_positive

import jdp
from jdp import devices, loops
from jdp.data import Episodes
from jdp.learning.diffuser import DiffuserConfig, TrainedDiffuser
from jdp.networks import NetworkConfig
from jdp.runs import Job
from jdp.synthesis import GuidanceConfig, SamplerConfig, TrainedModel, check_guidance
from jdp.types import WorldModel
from jdp.world_models.diffusion_step import DiffusionStepConfig
from jdp.world_models.ensemble import EnsembleConfig
from jdp.world_models.unified import UnifiedConfig


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which world model, and how it is trained."""

    world_model: Literal["ensemble", "diffusion_step", "unified"] = "ensemble"
    """Of the arm world_model, or of what learns in a model; mopo, morel and penalties need an ensemble."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    diffusion_step: DiffusionStepConfig = field(default_factory=DiffusionStepConfig)
    unified: UnifiedConfig = field(default_factory=UnifiedConfig)

    @property
    def chosen(self) -> EnsembleConfig | DiffusionStepConfig | UnifiedConfig:
        """The settings of the world model that is asked for."""
        return getattr(self, self.world_model)

    def check_world_model(self, data: Episodes) -> WorldModel:
        """The world model, untrained; raises `UserError` where it could not be trained on `data`."""
        rule = self.ensemble.termination
        return loops.make_world_model(self.chosen, data, termination=rule, mesh=devices.data_mesh())


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig(RunConfig, ModelOptions):
    """What scripts ask for that may train a world model on their dataset."""


# What presets say of world models.
MODEL_PRESETS: dict[str, dict[str, object]] = {
    "smoke": {
        "ensemble": EnsembleConfig(members=3, elites=2, hidden=(32, 32), decay=(0.0,), epochs=2),
        "diffusion_step": DiffusionStepConfig(features=32, blocks=1, steps=300),
        "unified": UnifiedConfig(features=32, blocks=1, steps=300),
    },
    "cpu": {"ensemble": EnsembleConfig(epochs=20)},
    "paper": {},
}


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(RunConfig):
    """What scripts ask for that train a trajectory diffuser."""

    horizon: int = 32
    """Steps of a generated trajectory."""
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig("residual_unet", 48, 3))
    diffusion: DiffuserConfig = field(default_factory=DiffuserConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)

    def check_trajectories(self) -> None:
        """Raises `UserError` for settings that cannot work."""
        check_guidance(self.guidance, self.sampler.sampler)
        sizes = {"steps": self.diffusion.steps, "batch-size": self.diffusion.batch_size}
        check_positive({f"--diffusion.{name}": value for name, value in sizes.items()})
        if self.horizon < 2:
            raise jdp.UserError(f"--horizon is {self.horizon}: it must be at least 2")


def train_world_model(job: Job[Any], key: jax.Array, data: Episodes | None = None) -> TrainedModel:
    """The world model that the command line asks for, of the job's dataset or of `data`."""
    config: ModelOptions = job.config
    return loops.train_world_model(
        job.data if data is None else data,
        config.chosen,
        key=key,
        termination=config.ensemble.termination,
        mesh=job.mesh,
        journal=job.journal,
    )


def train_diffuser(job: Job[TrajectoryConfig], key: jax.Array, phase: str = "diffuser") -> TrainedDiffuser:
    """The trajectory diffuser that the command line asks for."""
    config = job.config
    return loops.train_diffuser(
        job.data,
        config.network,
        config.diffusion,
        config.horizon,
        key=key,
        precision=config.precision,
        mesh=job.mesh,
        files=job.files,
        journal=job.journal,
        phase=phase,
    )
