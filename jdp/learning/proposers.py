"""Autoregressive proposers of plans: each row is predicted from those before it (arXiv 2407.16142)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import check_settings
from jdp.learning.averaged import Averaged, begin, descend
from jdp.learning.optimiser import adam
from jdp.networks.recurrent import Recurrent, gru, unrolled
from jdp.types import Metrics, Params


@dataclass(frozen=True)
class ProposerConfig:
    """A recurrent network from rows of a plan to the next one, and its training."""

    features: int = 128
    """Width of a layer."""
    layers: int = 1
    """Of gated recurrent units."""
    learning_rate: float = 1e-3
    """Peak of the same schedule as the denoiser's."""
    steps: int = 10_000
    """As of the denoiser."""
    ema: float = 0.995
    """Decay of the averaged weights that propose."""

    def __post_init__(self) -> None:
        check_settings("ProposerConfig", features=(self.features, 1, 1 << 20), layers=(self.layers, 1, 100))


class Proposer(NamedTuple):
    """A trainable proposer, as pure functions of standardised rows and a condition of all of them."""

    init: Callable[[Array, Array, Array], Averaged]  # init(key, row [B, D], condition [B, C])
    update: Callable[[Averaged, Array, Array], tuple[Averaged, Metrics]]
    # update(state, rows [B, T, D], condition), regression of every row but the first
    propose: Callable[[Averaged, Array, Array, int], Array]
    # propose(state, first [B, D], condition, T) -> rows [B, T, D], of which row 0 is the first


def predicted(network: Recurrent, params: Params, rows: Array, condition: Array) -> Array:
    """`[B, T, D]`: what follows each of `rows` `[B, T, D]`, of which it sees those up to that row.

    The network says by how much the next row differs.
    """
    given = jnp.broadcast_to(condition[:, None], (*rows.shape[:2], condition.shape[1]))
    return rows + unrolled(network, params, jnp.concatenate([rows, given], axis=-1))


def proposed(network: Recurrent, params: Params, first: Array, condition: Array, length: int) -> Array:
    """`[B, length, D]`: `first` `[B, D]`, and each next row as `predicted` from those before it."""

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        memory, row = carry
        memory, moved = network.step(params, memory, jnp.concatenate([row, condition], axis=-1))
        return (memory, row + moved), row + moved

    begun = network.begin(first.shape[0]), first
    rest = jax.lax.scan(step, begun, None, length=length - 1)[1]
    return jnp.concatenate([first[:, None], jnp.swapaxes(rest, 0, 1)], axis=1)


@lru_cache(maxsize=64)
def proposer(config: ProposerConfig, channels: int) -> Proposer:
    """The proposer of `config` for rows of `channels` entries; equal settings are the same functions.

    It learns by the squared error of the next row, shown the true ones before it.
    """
    network, optimiser = gru(config.features, config.layers, channels), adam(config)

    def init(key: Array, row: Array, condition: Array) -> Averaged:
        return begin(optimiser, network.init(key, jnp.concatenate([row, condition], axis=-1)))

    def update(state: Averaged, rows: Array, condition: Array) -> tuple[Averaged, Metrics]:
        def loss(params: Params) -> tuple[Array, Metrics]:
            found = predicted(network, params, rows[:, :-1], condition)
            error = jnp.mean(jnp.square(found - rows[:, 1:]))
            return error, {"proposer_loss": error}

        return descend(optimiser, state, loss, config.ema)

    def propose(state: Averaged, first: Array, condition: Array, length: int) -> Array:
        return proposed(network, state.ema, first, condition, length)

    return Proposer(init, update, propose)
