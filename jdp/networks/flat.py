"""Networks of chunks `[B, T, A]` as networks of flat ones `[B, T * A]`, as policies diffuse them."""

from collections.abc import Callable
from typing import Any

from jax import Array

from jdp.types import Bound, Network, Params, PyTree


def _stacked(x: Array, c_noise: Array, chunk: int) -> tuple[Array, Array]:
    steps = x.reshape(x.shape[0], chunk, -1)
    return steps, c_noise if c_noise.ndim == 1 else c_noise.reshape(steps.shape)


def _init(
    key: Array, x: Array, c_noise: Array, condition: PyTree, *, init: Callable[..., Params], chunk: int
) -> Params:
    return init(key, *_stacked(x, c_noise, chunk), condition)


def _apply(
    params: PyTree, x: Array, c_noise: Array, condition: PyTree, *, apply: Callable[..., Any], chunk: int
) -> Array:
    return apply(params, *_stacked(x, c_noise, chunk), condition).reshape(x.shape)


def of_flat(apply: Callable[..., Any], chunk: int) -> Bound:
    """`apply(params, x [B, T, A], c_noise [B] or [B, T, A], condition)` of `x` `[B, T * A]`; T is `chunk`.

    Levels are then `[B]` or `[B, T * A]`.
    """
    return Bound(_apply, (("apply", apply), ("chunk", chunk)))


def flattened(network: Network, chunk: int) -> Network:
    """`network` of chunks as one of flat chunks."""
    begin = Bound(_init, (("chunk", chunk), ("init", network.init)))
    return Network(begin, of_flat(network.apply, chunk))
