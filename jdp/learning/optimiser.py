"""Optimiser steps: the same for diffusers, agents, policies and planners."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.types import Metrics, Params, PyTree

Loss = Callable[..., tuple[Array, Metrics]]  # (params, *rows) -> (scalar, metrics)


class Trained(NamedTuple):
    """Trainable parameters and the state of their optimiser."""

    params: Params
    optimiser: PyTree


def step(
    optimiser: optax.GradientTransformation, gradient: Params, opt_state: PyTree, params: Params
) -> tuple[Params, PyTree]:
    """`(new params, new optimiser state)`."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer counts
        updates, opt_state = optimiser.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def begin(optimiser: optax.GradientTransformation, params: Params) -> Trained:
    """`params` before the first step of `optimiser`."""
    return Trained(params, optimiser.init(params))


def descend(
    optimiser: optax.GradientTransformation, trained: Trained, loss: Loss, *rows: PyTree
) -> tuple[Trained, Metrics]:
    """One step in the parameters on `loss(params, *rows) -> (scalar, metrics)`."""
    gradient, metrics = jax.grad(loss, has_aux=True)(trained.params, *rows)
    return Trained(*step(optimiser, gradient, trained.optimiser, trained.params)), metrics


def copied(params: Params) -> Params:
    """A target's first parameters: the fit loop donates the state, and no buffer can be donated twice."""
    return jax.tree.map(jnp.copy, params)


def polyak(target: Params, online: Params, tau: float) -> Params:
    """`tau * online + (1 - tau) * target`: with a small `tau` the target moves slowly."""
    return jax.tree.map(lambda t, o: tau * o + (1 - tau) * t, target, online)


def clipped_adam(
    learning_rate: optax.ScalarOrSchedule, grad_norm: float | None
) -> optax.GradientTransformation:
    """Adam, after gradients longer than `grad_norm` were scaled down to it."""
    found = optax.adam(learning_rate)
    return found if grad_norm is None else optax.chain(optax.clip_by_global_norm(grad_norm), found)


class Scheduled(Protocol):
    """A config with the peak of a learning rate and the steps over which it falls."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def steps(self) -> int: ...


def warmup_cosine(peak: float, steps: int) -> optax.Schedule:
    """Warm-up from a tenth of `peak` over a tenth of `steps`, then a cosine to 0."""
    warm_up = max(steps // 10, 1)
    return optax.warmup_cosine_decay_schedule(peak / 10, peak, warm_up, max(steps, warm_up + 1))


def adam(config: Scheduled) -> optax.GradientTransformation:
    """Adam on `warmup_cosine` of a config with `learning_rate` and `steps`."""
    return optax.adam(warmup_cosine(config.learning_rate, config.steps))


class Constant(Protocol):
    """A config with a learning rate that does not change."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...


def constant_adam(config: Constant) -> optax.GradientTransformation:
    """Adam of a config with `learning_rate` and `adam_eps`."""
    return optax.adam(config.learning_rate, eps=config.adam_eps)
