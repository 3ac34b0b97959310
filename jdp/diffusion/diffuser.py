"""A trajectory diffuser: network, loss, optimiser and averaged weights behind three functions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm
from jdp.networks import NetworkConfig, Precision, make
from jdp.networks.optimiser import step
from jdp.types import Diffuser, Metrics, Params


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


class DiffuserState(NamedTuple):
    """Weights, their average, and where training stands."""

    params: Params
    ema: Params  # averaged weights
    opt_state: Any
    step: Array  # [], int32


def ema_decay(decay: float, step: Array) -> Array:
    """`min(decay, (1 + step) / (10 + step))`: early averages forget the initial weights sooner."""
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1 + n) / (10 + n))


def learning_rate(peak: float, steps: int) -> optax.Schedule:
    """Warm-up from a tenth of `peak` over a tenth of `steps`, then a cosine to 0."""
    warm_up = max(steps // 10, 1)
    return optax.warmup_cosine_decay_schedule(peak / 10, peak, warm_up, max(steps, warm_up + 1))


def adam(config: Any) -> optax.GradientTransformation:
    """Adam on the schedule of a config with `learning_rate` and `steps`."""
    return optax.adam(learning_rate(config.learning_rate, config.steps))


def begin(optimiser: optax.GradientTransformation, params: Params) -> DiffuserState:
    """Training of `params` before its first step."""
    ema = jax.tree.map(jnp.copy, params)
    return DiffuserState(params, ema, optimiser.init(params), jnp.zeros((), jnp.int32))


def descend(
    optimiser: optax.GradientTransformation,
    state: DiffuserState,
    loss: Callable[[Params], tuple[Array, Metrics]],
    ema: float,
) -> tuple[DiffuserState, Metrics]:
    """One step of the optimiser on `loss(params)`, and of the weights averaged with decay `ema`."""
    grads, metrics = jax.grad(loss, has_aux=True)(state.params)
    params, opt_state = step(optimiser, grads, state.opt_state, state.params)
    averaged = optax.incremental_update(params, state.ema, 1 - ema_decay(ema, state.step))
    return DiffuserState(params, averaged, opt_state, state.step + 1), metrics


@lru_cache(maxsize=32)  # equal settings are the same functions, so they compile once
def trajectory_diffuser(
    network: NetworkConfig, config: DiffuserConfig, precision: Precision = "float32"
) -> Diffuser:
    """Trains a denoiser of normalised trajectories `[B, T, D]` with EDM's loss.

    `init(key, x0)` needs any batch, for its shape; `update(key, state, x0)` makes one step of Adam
    and of the average; `denoiser(state)` is the EDM denoiser of the averaged weights.
    """
    net = make(network, precision)
    optimiser = adam(config)

    def init(key: Array, x0: Array) -> DiffuserState:
        return begin(optimiser, net.init(key, x0, jnp.zeros(x0.shape[:1], x0.dtype)))

    def update(key: Array, state: DiffuserState, x0: Array) -> tuple[DiffuserState, Metrics]:
        def loss(params: Params) -> tuple[Array, Metrics]:
            return losses.denoising(key, net.apply, params, x0, p_mean=config.p_mean, p_std=config.p_std)

        return descend(optimiser, state, loss, config.ema)

    def denoiser(state: DiffuserState) -> Partial:
        return edm(net.apply, state.ema)

    return Diffuser(init, update, denoiser)
