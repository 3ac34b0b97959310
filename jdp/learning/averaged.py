"""Training with averaged weights, in micro-batches where memory is short: what diffusion models need."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.errors import UserError
from jdp.learning.optimiser import Loss, step
from jdp.types import Metrics, Params, PyTree


class Averaged(NamedTuple):
    """Weights, their average, and where training stands."""

    params: Params
    ema: Params  # averaged weights
    opt_state: PyTree
    step: Array  # [], int32


def begin(optimiser: optax.GradientTransformation, params: Params) -> Averaged:
    """Training of `params` before its first step."""
    ema = jax.tree.map(jnp.copy, params)
    return Averaged(params, ema, optimiser.init(params), jnp.zeros((), jnp.int32))


def ema_decay(decay: float, step: Array) -> Array:
    """`min(decay, (1 + step) / (10 + step))`: early averages forget the initial weights sooner."""
    n = step.astype(jnp.float32)
    return jnp.minimum(decay, (1 + n) / (10 + n))


def check_accumulate(count: int) -> None:
    """Raises `UserError` for fewer micro-batches than one."""
    if count < 1:
        raise UserError(f"accumulate is {count}: a batch is computed in at least 1 part")


def mean_gradient(
    loss: Loss, params: Params, rows: tuple[PyTree, ...], accumulate: int
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
    state: Averaged,
    loss: Loss,
    ema: float,
    rows: tuple[PyTree, ...] = (),
    accumulate: int = 1,
) -> tuple[Averaged, Metrics]:
    """One step of the optimiser on `loss(params, *rows)`, and of the weights averaged with decay `ema`.

    `accumulate`: see `mean_gradient`.
    """
    grads, metrics = mean_gradient(loss, state.params, rows, accumulate)
    params, opt_state = step(optimiser, grads, state.opt_state, state.params)
    averaged = optax.incremental_update(params, state.ema, 1 - ema_decay(ema, state.step))
    return Averaged(params, averaged, opt_state, state.step + 1), metrics
