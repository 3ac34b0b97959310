"""Settings of a conditioned diffusion of vectors: of actions, and of what a step changes."""

from dataclasses import dataclass

from jdp.diffusion.sampling import Sampling
from jdp.networks import Precision
from jdp.networks.conditional_mlp import conditional_mlp
from jdp.types import Network


@dataclass(frozen=True)
class VectorDiffusionConfig:
    """An EDM denoiser (arXiv 2206.00364) of vectors given a condition: its network, training and sampling."""

    features: int = 256
    """Width of the denoiser."""
    blocks: int = 3
    """Residual blocks of two layers."""
    learning_rate: float = 3e-4
    """Of Adam at the first step."""
    steps: int = 1_000_000
    """Updates over which the learning rate falls to 0 by a cosine."""
    ema: float = 0.999
    """Decay of the averaged weights that are sampled from, per update."""
    sampler: str = "dpmpp_2m"
    """One of `jdp.diffusion.samplers.SAMPLERS`."""
    sampling_steps: int = 5
    """Steps of the sampler."""
    sigma_min: float = 0.02
    """Last positive level of the Karras schedule."""
    sigma_max: float = 5.0
    """First level of the Karras schedule."""
    rho: float = 7.0
    """Curvature of the Karras schedule."""
    p_mean: float = -1.2
    """Mean of ln sigma in training."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in training."""
    precision: Precision = "float32"
    """Of the denoiser's arithmetic; weights, optimiser, average, losses, critics and targets are float32."""

    def __post_init__(self) -> None:
        self.sampling().check(type(self).__name__, steps="sampling_steps")

    def sampling(self) -> Sampling:
        """How vectors are sampled."""
        return Sampling(self.sampler, self.sampling_steps, self.sigma_min, self.sigma_max, self.rho)

    def network(self, groups: tuple[int, ...] = (0,)) -> Network:
        """Of vectors `[B, D]`, seeing a condition `[B, C]`; `groups` of entries have a level in common."""
        return conditional_mlp(self.features, self.blocks, groups, self.precision)
