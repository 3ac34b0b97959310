"""Networks of sequences `[B, T, D]` as ones of flat vectors `[B, T * D]`, and the other way round."""

from collections.abc import Callable
from typing import Any

from jax import Array

from jdp.types import Bound, Network, Params, PyTree


def _stacked(x: Array, c_noise: Array, length: int) -> tuple[Array, Array]:
    steps = x.reshape(x.shape[0], length, -1)
    return steps, c_noise if c_noise.ndim == 1 else c_noise.reshape(steps.shape)


def _init(
    key: Array, x: Array, c_noise: Array, condition: PyTree, *, init: Callable[..., Params], length: int
) -> Params:
    return init(key, *_stacked(x, c_noise, length), condition)


def _apply(
    params: PyTree, x: Array, c_noise: Array, condition: PyTree, *, apply: Callable[..., Any], length: int
) -> Array:
    return apply(params, *_stacked(x, c_noise, length), condition).reshape(x.shape)


def flat_apply(apply: Callable[..., Any], length: int) -> Bound:
    """`apply(params, x [B, T, D], c_noise [B] or [B, T, D], condition)` of `x` `[B, T * D]`; T is `length`.

    Levels are then `[B]` or `[B, T * D]`.
    """
    return Bound(_apply, (("apply", apply), ("length", length)))


def flat(network: Network, length: int) -> Network:
    """A network of sequences `[B, T, D]` of `length` T as one of vectors `[B, T * D]`."""
    begin = Bound(_init, (("init", network.init), ("length", length)))
    return Network(begin, flat_apply(network.apply, length))


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
