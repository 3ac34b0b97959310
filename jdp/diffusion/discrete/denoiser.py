"""Denoisers of tokens: any trajectory network with one-hot tokens as its channels, and their temperature."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import Network, Params, TokenDenoiser, bind


def _apply(
    params: Params, condition: Array | None, tokens: Array, level: Array, *, network: Network, vocabulary: int
) -> Array:
    x = jax.nn.one_hot(tokens, vocabulary + 1, dtype=jnp.float32)
    return network.apply(params, x, level, condition)[..., :vocabulary]


def init(
    key: Array, network: Network, length: int, vocabulary: int, condition: Array | None = None
) -> Params:
    """Parameters of `network` for tokens `[B, L]`, at conditions `[B, C]` if any; the key is consumed."""
    rows = 1 if condition is None else len(condition)
    return network.init(key, jnp.zeros((rows, length, vocabulary + 1)), jnp.zeros(rows), condition)


def of_network(
    network: Network, params: Params, vocabulary: int, condition: Array | None = None
) -> TokenDenoiser:
    """The denoiser of tokens `[B, L]` below `vocabulary`, at conditions `[B, C]` if any.

    `network` is one of `jdp.networks.make`, for instance of kind "transformer".
    """
    return bind(_apply, params, condition, network=network, vocabulary=vocabulary)


def _tempered(denoiser: TokenDenoiser, temperature: Array, tokens: Array, level: Array) -> Array:
    return denoiser(tokens, level) / temperature


def tempered(denoiser: TokenDenoiser, temperature: Array | float) -> Partial:
    """The denoiser `softmax(logits / temperature)`: below 1 surer of itself, near 0 greedy."""
    return bind(_tempered, denoiser, jnp.asarray(temperature, jnp.float32))
