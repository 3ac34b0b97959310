"""Settings that all diffusion world models of vectors share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from jdp.learning.vector_diffusion import VectorDiffusionConfig


@dataclass(frozen=True)
class DiffusionModelConfig(VectorDiffusionConfig):
    """What every diffusion world model of vectors is configured by; levels are in standard deviations."""

    RENAMED: ClassVar[Mapping[str, str]] = {"hidden": "features", "sampler_steps": "sampling_steps"}

    sampling_steps: int = 10
    """Steps of the sampler."""
    sigma_max: float = 80.0
    """First level of the Karras schedule."""
    p_mean: float = 0.0
    """Mean of ln sigma in training: higher than for pictures, for the condition says nearly everything."""
    p_std: float = 1.4
    """Standard deviation of ln sigma in training."""
    steps: int = 20_000
    """Gradient steps, over which the learning rate warms up and falls to 0 by a cosine."""
    batch_size: int = 256
    """Steps in a batch."""
    learning_rate: float = 3e-3
    """Peak of the schedule."""
