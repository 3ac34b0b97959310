"""A trajectory diffuser: network, loss, optimiser and averaged weights behind three functions."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.data import Normaliser
from jdp.data.draws import WindowDraw
from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm, edm_preconditioning
from jdp.learning.averaged import Averaged, begin, check_accumulate, descend
from jdp.learning.optimiser import adam
from jdp.networks import NetworkConfig, Precision, make
from jdp.types import Denoiser, Diffuser, Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class DiffuserConfig:
    """How the trajectory diffuser is trained."""

    steps: int = 20_000
    """Gradient steps."""
    batch_size: int = 64
    """Windows in a batch, over all devices."""
    learning_rate: float = 2e-3
    """Peak of the schedule: linear warm-up over the first tenth, then a cosine to 0."""
    ema: float = 0.999
    """Decay of the averaged weights that are sampled from, per step."""
    p_mean: float = -1.2
    """Mean of ln sigma in training."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in training."""
    accumulate: int = 1
    """Micro-batches that a batch is computed in, one after another: less memory, the same gradient."""

    def __post_init__(self) -> None:
        check_accumulate(self.accumulate)


class TrainedDiffuser(NamedTuple):
    """A diffuser with what it learned, and the coordinates of its trajectories."""

    diffuser: Diffuser
    state: Averaged
    normaliser: Normaliser

    @property
    def denoiser(self) -> Denoiser:
        """Of normalised trajectories `[B, T, D]`, with the averaged weights."""
        return self.diffuser.denoiser(self.state)


@lru_cache(maxsize=32)  # equal settings are the same functions, so they compile once
def trajectory_diffuser(
    network: NetworkConfig, config: DiffuserConfig, horizon: int, precision: Precision = "float32"
) -> Diffuser:
    """Trains a denoiser of normalised trajectories `[B, horizon, D]` with EDM's loss.

    `init(key, x0)` needs any batch, for its shape; `update(key, state, x0)` makes one step of Adam
    and of the average; `denoiser(state)` is the EDM denoiser of the averaged weights. `precision` is that of
    the network's arithmetic: weights, optimiser, average and loss are float32.
    """
    net = make(network, precision)
    optimiser = adam(config)

    def init(key: Array, x0: Array) -> Averaged:
        return begin(optimiser, net.init(key, x0, jnp.zeros(x0.shape[:1], x0.dtype)))

    def update(key: Array, state: Averaged, x0: Array) -> tuple[Averaged, Metrics]:
        keys = named_keys(key, "level", "noise")
        sigma = losses.log_normal_levels(
            keys["level"], x0.shape[0], x0.dtype, p_mean=config.p_mean, p_std=config.p_std
        )
        noise = jax.random.normal(keys["noise"], x0.shape, x0.dtype)

        def loss(params: Params, x0: Array, sigma: Array, noise: Array) -> tuple[Array, Metrics]:
            return losses.prediction_error(net.apply, params, x0, sigma, noise, edm_preconditioning())

        return descend(optimiser, state, loss, config.ema, (x0, sigma, noise), config.accumulate)

    def denoiser(state: Averaged) -> Partial:
        return edm(net.apply, state.ema)

    return Diffuser(Learner(init, update, WindowDraw(horizon)), denoiser)
