"""What the trajectory networks share: noise embedding, temporal convolution, modulation."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

Precision = Literal["float32", "bf16"]


def dtype_of(precision: Precision) -> Any:
    """The type of a network's arithmetic; its parameters and what it returns are float32."""
    return jnp.bfloat16 if precision == "bf16" else jnp.float32


def _tap(x: Array, shift: int) -> Array:
    """`x` `[B, T, C]` seen `shift` steps later, zeros outside."""
    length = x.shape[1]
    first, last = min(max(shift, 0), length), max(length + min(shift, 0), 0)
    return jnp.pad(x[:, first:last], ((0, 0), (length - last, first), (0, 0)))


def columns(x: Array, kernel_size: int) -> Array:
    """What each output of a convolution over time sees, `[B, T, C] -> [B, T, kernel_size * C]`.

    Each tap is cut first and padded then: the transpose of that is one pass on a CPU, of a slice of a padded
    sequence two.
    """
    left = (kernel_size - 1) // 2
    return jnp.concatenate([_tap(x, i - left) for i in range(kernel_size)], axis=-1)


class TemporalConv(nn.Module):
    """Convolution over time, `[B, T, C] -> [B, T, features]`, "same" padding with zeros.

    It is one matrix product with what each output sees: inside a loop, XLA's CPU backend runs the backward
    pass of a convolution primitive more than 20 times slower.
    """

    features: int
    kernel_size: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.features, dtype=self.dtype)(columns(x, self.kernel_size))


class NoiseEmbedding(nn.Module):
    """`c_noise` `[B]` -> `[B, 1, features]`; `[B, T]` -> `[B, T, features]`.

    A level per channel, `[B, T, D]`, enters as a linear map of the levels, added to the embedding
    of their mean. Frequencies are geometric between 1 and `last_frequency`. A `condition` `[B, C]` is
    embedded by a layer of its own and added.
    """

    features: int
    frequencies: int = 32
    last_frequency: float = 64.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, c_noise: Array, condition: Array | None = None) -> Array:
        per_channel = c_noise if c_noise.ndim == 3 else None
        if per_channel is not None:
            c_noise = per_channel.mean(-1)
        levels = c_noise[:, None] if c_noise.ndim == 1 else c_noise
        w = jnp.geomspace(1.0, self.last_frequency, self.frequencies, dtype=jnp.float32)
        angles = levels[..., None] * w[None, None]
        hidden = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        hidden = nn.silu(nn.Dense(self.features, dtype=self.dtype)(hidden))
        hidden = nn.Dense(self.features, dtype=self.dtype)(hidden)
        if per_channel is not None:
            hidden = hidden + nn.Dense(self.features, dtype=self.dtype, name="channels")(per_channel)
        if condition is not None and condition.shape[-1]:  # an empty condition says nothing
            given = nn.silu(nn.Dense(self.features, dtype=self.dtype, name="condition_0")(condition))
            hidden = hidden + nn.Dense(self.features, dtype=self.dtype, name="condition_1")(given)[:, None]
        return nn.silu(hidden)


def halve(x: Array) -> Array:
    """Mean of neighbours, `[B, T, C] -> [B, T // 2, C]`; an odd last step is dropped, a single one stays."""
    if x.shape[1] == 1:
        return x
    length = x.shape[1] // 2 * 2
    return (x[:, 0:length:2] + x[:, 1:length:2]) * jnp.asarray(0.5, x.dtype)


def embedding_pyramid(embedding: Array, levels: int) -> list[Array]:
    """The noise embedding at each resolution of a U-Net, the mean of those of the steps that `halve` joins.

    Means of embeddings, not of levels, so that the network hears of a clean step beside a noisy one.
    """
    pyramid = [embedding]
    for _ in range(levels - 1):
        pyramid.append(pyramid[-1] if embedding.shape[1] == 1 else halve(pyramid[-1]))
    return pyramid


def stretch(x: Array, length: int) -> Array:
    """Nearest-neighbour resize over time, `[B, T, C] -> [B, length, C]`."""
    index = (jnp.arange(length) * x.shape[1]) // length
    return x[:, index]


class Modulate(nn.Module):
    """Scale and shift of `x` by the noise embedding (FiLM, arXiv 1709.07871)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        film = nn.Dense(2 * x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros)(embedding)
        scale, shift = jnp.split(film, 2, axis=-1)
        return x * (1 + scale) + shift
