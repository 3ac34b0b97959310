"""Preferences: pairs of samples of which one was preferred, and who says so."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import AnyArray


class Pairs(NamedTuple):
    """N pairs of samples at the same conditions: rows of `Given`."""

    winner: AnyArray  # [N, *event]
    loser: AnyArray  # [N, *event]
    condition: AnyArray  # [N, C]


def first_wins(key: Array, gain: Array) -> Array:
    """`[N]` bool, by Bradley and Terry's rule; the key is consumed.

    Args:
        gain: `[N]`, how much better the first one is, in units in which 1 is preferred 73 % of the time.
    """
    return jax.random.bernoulli(key, jax.nn.sigmoid(gain))


def decided(first: Array, second: Array, wins: Array, condition: Array) -> Pairs:
    """Pairs of samples `[N, *event]`, of which the first one `wins` `[N]` or not."""
    wins = wins.reshape(-1, *(1,) * (first.ndim - 1))
    return Pairs(jnp.where(wins, first, second), jnp.where(wins, second, first), condition)


def labelled(key: Array, first: Array, second: Array, condition: Array, gain: Array) -> Pairs:
    """Pairs of samples `[N, *event]` decided by `first_wins`, of a `gain` `[N]`; the key is consumed."""
    return decided(first, second, first_wins(key, gain), condition)
