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
from jdp.diffusion.denoiser import edm, edm_preconditioning
from jdp.errors import UserError
from jdp.networks import NetworkConfig, Precision, make
from jdp.networks.optimiser import step
from jdp.types import Diffuser, Metrics, Params, PyTree, named_keys


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


def check_accumulate(count: int) -> None:
    """Raises `UserError` for fewer micro-batches than one."""
    if count < 1:
        raise UserError(f"accumulate is {count}: a batch is computed in at least 1 part")


def mean_gradient(
    loss: Callable[..., tuple[Array, Metrics]], params: Params, rows: tuple[PyTree, ...], accumulate: int
) -> tuple[Params, Metrics]:
    """`(gradient, metrics)` of `loss(params, *rows)`, a mean over rows, in `accumulate` scanned parts.

    Leaves of `rows` are `[B, ...]`, and hold all that differs from row to row, the noise too: so a row's
    noise does not depend on the number of parts. Part `i` has the rows `i, i + N, i + 2 N, ...`, which lie on
    all devices that a batch is split over.

    Raises:
        UserError: if B does not divide into the parts.
    """
    value = jax.grad(loss, has_aux=True)
    if accumulate == 1:
        return value(params, *rows)

    def divide(x: Array) -> Array:
        if x.shape[0] % accumulate:
            raise UserError(
                f"a batch of {x.shape[0]} does not divide into {accumulate} micro-batches: choose a batch "
                "size that is a multiple of --accumulate"
            )
        parts = x.reshape((x.shape[0] // accumulate, accumulate, *x.shape[1:]))
        return jnp.swapaxes(parts, 0, 1)

    def add(total: PyTree, part: tuple[PyTree, ...]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, value(params, *part)), None

    parts = jax.tree.map(divide, rows)
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(value, params, *first))
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / accumulate, total)


def descend(
    optimiser: optax.GradientTransformation,
    state: DiffuserState,
    loss: Callable[..., tuple[Array, Metrics]],
    ema: float,
    rows: tuple[PyTree, ...] = (),
    accumulate: int = 1,
) -> tuple[DiffuserState, Metrics]:
    """One step of the optimiser on `loss(params, *rows)`, and of the weights averaged with decay `ema`.

    `accumulate`: see `mean_gradient`.
    """
    grads, metrics = mean_gradient(loss, state.params, rows, accumulate)
    params, opt_state = step(optimiser, grads, state.opt_state, state.params)
    averaged = optax.incremental_update(params, state.ema, 1 - ema_decay(ema, state.step))
    return DiffuserState(params, averaged, opt_state, state.step + 1), metrics


@lru_cache(maxsize=32)  # equal settings are the same functions, so they compile once
def trajectory_diffuser(
    network: NetworkConfig, config: DiffuserConfig, precision: Precision = "float32"
) -> Diffuser:
    """Trains a denoiser of normalised trajectories `[B, T, D]` with EDM's loss.

    `init(key, x0)` needs any batch, for its shape; `update(key, state, x0)` makes one step of Adam
    and of the average; `denoiser(state)` is the EDM denoiser of the averaged weights. `precision` is that of
    the network's arithmetic: weights, optimiser, average and loss are float32.
    """
    net = make(network, precision)
    optimiser = adam(config)

    def init(key: Array, x0: Array) -> DiffuserState:
        return begin(optimiser, net.init(key, x0, jnp.zeros(x0.shape[:1], x0.dtype)))

    def update(key: Array, state: DiffuserState, x0: Array) -> tuple[DiffuserState, Metrics]:
        keys = named_keys(key, "level", "noise")
        sigma = losses.log_normal_levels(
            keys["level"], x0.shape[0], x0.dtype, p_mean=config.p_mean, p_std=config.p_std
        )
        noise = jax.random.normal(keys["noise"], x0.shape, x0.dtype)

        def loss(params: Params, x0: Array, sigma: Array, noise: Array) -> tuple[Array, Metrics]:
            return losses.prediction_error(net.apply, params, x0, sigma, noise, edm_preconditioning())

        return descend(optimiser, state, loss, config.ema, (x0, sigma, noise), config.accumulate)

    def denoiser(state: DiffuserState) -> Partial:
        return edm(net.apply, state.ema)

    return Diffuser(init, update, denoiser)
