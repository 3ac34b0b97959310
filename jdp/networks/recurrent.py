"""A recurrent network, one step at a time: what it was shown before lives in its memory."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import Bound, Params


class Recurrent(NamedTuple):
    """A recurrent network as pure functions; nothing else knows which one it is."""

    init: Callable[[Array, Array], Params]  # init(key, x [B, D])
    begin: Callable[[int], Array]  # begin(B) -> memory [B, M] before the first step
    step: Callable[[Params, Array, Array], tuple[Array, Array]]
    # step(params, memory, x [B, D]) -> (memory, [B, E])


class GRU(nn.Module):
    """Layers of gated recurrent units (arXiv 1406.1078), and a linear map of the last one's state."""

    features: int
    layers: int
    out: int

    @nn.compact
    def __call__(self, memory: Array, x: Array) -> tuple[Array, Array]:
        """`(memory [B, layers * features], [B, out])` after `x` `[B, D]`."""
        found = []
        for layer in jnp.split(memory, self.layers, axis=-1):
            state, x = nn.GRUCell(self.features)(layer, x)
            found.append(state)
        return jnp.concatenate(found, axis=-1), nn.Dense(self.out)(x)


def _init(key: Array, x: Array, *, module: GRU) -> Params:
    return module.init(key, _begin(x.shape[0], module=module), x)


def _begin(rows: int, *, module: GRU) -> Array:
    return jnp.zeros((rows, module.layers * module.features))


def _step(params: Params, memory: Array, x: Array, *, module: GRU) -> tuple[Array, Array]:
    return module.apply(params, memory, x)  # pyright: ignore[reportReturnType]


def gru(features: int, layers: int, out: int) -> Recurrent:
    """`GRU` as a `Recurrent` to `[B, out]`."""
    own = (("module", GRU(features, layers, out)),)
    return Recurrent(*(Bound(function, own) for function in (_init, _begin, _step)))


def unrolled(network: Recurrent, params: Params, x: Array) -> Array:
    """`[B, T, E]`, what it says after each row of `x` `[B, T, D]`, of which it knows those up to it."""

    def step(memory: Array, row: Array) -> tuple[Array, Array]:
        return network.step(params, memory, row)

    found = jax.lax.scan(step, network.begin(x.shape[0]), jnp.swapaxes(x, 0, 1))[1]
    return jnp.swapaxes(found, 0, 1)
