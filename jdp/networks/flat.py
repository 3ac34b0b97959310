"""Networks of sequences as networks of flat vectors, and of vectors as networks of sequences."""

from collections.abc import Callable
from typing import Any

from jax import Array

from jdp.types import Bound, Network, Params


def _init(
    key: Array, x: Array, c_noise: Array, condition: Any, *, init: Callable[..., Params], length: int
) -> Params:
    return init(key, x.reshape(x.shape[0], length, -1), c_noise, condition)


def _apply(
    params: Params, x: Array, c_noise: Array, condition: Any, *, apply: Callable[..., Array], length: int
) -> Array:
    return apply(params, x.reshape(x.shape[0], length, -1), c_noise, condition).reshape(x.shape)


def flat_apply(apply: Callable[..., Any], length: int) -> Bound:
    """`apply(params, x [B, T, D], c_noise, condition)` of `length` T as one of `x` `[B, T * D]`."""
    return Bound(_apply, (("apply", apply), ("length", length)))


def flat(network: Network, length: int) -> Network:
    """A network of sequences `[B, T, D]` of `length` T as one of vectors `[B, T * D]`."""
    return Network(
        Bound(_init, (("init", network.init), ("length", length))), flat_apply(network.apply, length)
    )


def _joined(first: Any, x: Array, c_noise: Array, condition: Any, *, function: Callable[..., Any]) -> Any:
    return function(first, x.reshape(x.shape[0], -1), c_noise, condition)


def _joined_apply(
    params: Params, x: Array, c_noise: Array, condition: Any, *, apply: Callable[..., Any]
) -> Array:
    return _joined(params, x, c_noise, condition, function=apply).reshape(x.shape)


def joined(network: Network) -> Network:
    """A network of vectors `[B, T * D]` as one of sequences `[B, T, D]`, all of one length."""
    return Network(
        Bound(_joined, (("function", network.init),)), Bound(_joined_apply, (("apply", network.apply),))
    )
