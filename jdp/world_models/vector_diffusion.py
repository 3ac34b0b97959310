"""Settings that all diffusion world models of vectors share."""

from dataclasses import dataclass

from jdp.diffusion.sampling import Sampling
from jdp.networks import Precision


@dataclass(frozen=True)
class VectorDiffusionConfig:
    """What every diffusion world model of vectors is configured by."""

    hidden: int = 256
    """Width of the network."""
    blocks: int = 3
    """Residual blocks of two layers."""
    sampler: str = "dpmpp_2m"
    """One of `jdp.diffusion.samplers.SAMPLERS`."""
    sampler_steps: int = 10
    """Steps of the sampler."""
    sigma_min: float = 0.02
    """Last positive level of the Karras schedule."""
    sigma_max: float = 80.0
    """First level of the Karras schedule, in units of the data's standard deviation."""
    rho: float = 7.0
    """Curvature of the Karras schedule."""
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
    ema: float = 0.999
    """Decay of the averaged weights that are sampled from."""
    precision: Precision = "float32"
    """Of the network's arithmetic; weights, optimiser, average and loss are float32."""

    def __post_init__(self) -> None:
        self.sampling().check(type(self).__name__, steps="sampler_steps")

    def sampling(self) -> Sampling:
        """How steps are sampled."""
        return Sampling(self.sampler, self.sampler_steps, self.sigma_min, self.sigma_max, self.rho)
