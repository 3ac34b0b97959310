"""One network for several like things at once: each has its part of the input, and of the output."""

import jax.numpy as jnp
from jax import Array

from jdp.types import Bound, Network, Params


def _init(key: Array, x: Array, *, network: Network, parts: int) -> Params:
    return network.init(key, jnp.split(x, parts, -1)[0])


def _apply(params: Params, x: Array, *, network: Network, parts: int) -> Array:
    lead = x.shape[:-1]
    return network.apply(params, x.reshape(*lead, parts, -1)).reshape(*lead, -1)


def shared(network: Network, parts: int) -> Network:
    """`network` of the `parts` equal parts of `x` `[..., D]`, whose outputs stand one after another.

    For instance of agents that decide alike, each by what it sees itself.
    """
    settings = (("network", network), ("parts", parts))
    return Network(Bound(_init, settings), Bound(_apply, settings))
