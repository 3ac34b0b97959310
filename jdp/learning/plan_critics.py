"""Judges of plans: a number regressed on trajectories, clean or at any noise level."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.formulations import formulation
from jdp.learning.averaged import Averaged, begin, check_accumulate, descend
from jdp.learning.optimiser import adam
from jdp.networks import Precision, ValueNetworkConfig, make_value
from jdp.types import Metrics, Params, bind, named_keys


class Critic(NamedTuple):
    """A trainable judge of (noisy) plans, as pure functions."""

    init: Callable[[Array, Array, Array], Averaged]  # init(key, x0 [B, T, D], condition [B, C])
    update: Callable[..., tuple[Averaged, Metrics]]
    # update(key, state, x0, condition, known, target [B]), regression
    value: Callable[[Averaged, Array], Partial]  # value(state, condition) -> (x, sigma) -> [B]


@dataclass(frozen=True)
class CriticConfig:
    """A judge of plans and its training."""

    network: ValueNetworkConfig = field(default_factory=ValueNetworkConfig)
    learning_rate: float = 1e-3
    """Peak of the same schedule as the denoiser's."""
    steps: int = 10_000
    """As of the denoiser."""
    ema: float = 0.995
    """Decay of the averaged weights."""
    noisy: bool = True
    """Whether it learns to judge plans under noise, as guidance at the noised point needs."""
    precision: Precision = "float32"
    """As of the denoiser."""
    accumulate: int = 1
    """As of the denoiser."""

    def __post_init__(self) -> None:
        check_accumulate(self.accumulate)


CLEAN = 0.02  # the level at which plans without noise are judged: near 0, and within what training shows


def _judge(params: Params, condition: Array, x: Array, sigma: Array, *, apply: Callable) -> Array:
    level = jnp.broadcast_to(sigma, (x.shape[0], *sigma.shape[1:])).reshape(x.shape[0], -1).max(-1)
    level = jnp.maximum(level, CLEAN)
    scale = jax.lax.rsqrt(1 + jnp.square(level))
    return apply(params, scale[:, None, None] * x, jnp.log(level) / 4, condition)


@lru_cache(maxsize=64)
def critic(config: CriticConfig) -> Critic:
    """The judge of `config`: regression of a number on plans, at noise levels from none to pure noise."""
    net, optimiser, form = make_value(config.network, config.precision), adam(config), formulation("edm")

    def init(key: Array, x0: Array, condition: Array) -> Averaged:
        return begin(optimiser, net.init(key, x0, jnp.zeros(x0.shape[:1], x0.dtype), condition))

    def update(key: Array, state: Averaged, x0: Array, condition: Array, known: Array, target: Array):
        keys = named_keys(key, "level", "clean", "noise")
        level = form.levels(keys["level"], x0.shape[0], x0.dtype)
        clean = jax.random.bernoulli(keys["clean"], 0.5 if config.noisy else 1.0, level.shape)
        level = jnp.where(clean, CLEAN, level)
        noise = level[:, None, None] * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
        x = x0 + jnp.where(jnp.broadcast_to(known, x0.shape), 0.0, noise)

        def loss(
            params: Params, x: Array, level: Array, condition: Array, target: Array
        ) -> tuple[Array, Metrics]:
            error = jnp.mean(jnp.square(_judge(params, condition, x, level, apply=net.apply) - target))
            return error, {"critic_loss": error}

        rows = (x, level, condition, target)
        return descend(optimiser, state, loss, config.ema, rows, config.accumulate)

    def value(state: Averaged, condition: Array) -> Partial:
        return bind(_judge, state.ema, condition, apply=net.apply)

    return Critic(init, update, value)
