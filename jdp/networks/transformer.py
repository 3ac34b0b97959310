"""Diffusion transformer over time steps, and a mixer of the same layout."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.branches import branch
from jdp.networks.layers import Modulate, NoiseEmbedding


def positions(length: int, features: int) -> Array:
    """`[T, features]` sinusoidal positions (arXiv 1706.03762), so that any length may be sampled."""
    w = jnp.geomspace(1.0, 1e-4, features // 2, dtype=jnp.float32)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * w[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class _Gate(nn.Module):
    """Multiplies a branch by a learned function of the noise level that starts at zero."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        return x * nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros)(embedding)


class DiffusionTransformer(nn.Module):
    """DiT with adaptive layer norm, zero at the start (arXiv 2212.09748), one token a time step."""

    features: int = 128
    blocks: int = 3
    heads: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        channels, length = x.shape[1:][::-1]
        embedding = NoiseEmbedding(self.features, dtype=self.dtype)(c_noise, condition)
        hidden = nn.Dense(self.features, dtype=self.dtype)(x)
        hidden = hidden + positions(length, self.features).astype(hidden.dtype)[None]
        hidden = self.transform(hidden, embedding)  # whose layers are named first, as in trained models
        return self.read(hidden, embedding, channels)

    def transform(self, hidden: Array, embedding: Array, mask: Array | None = None) -> Array:
        """`[B, T, features]`, what the blocks make of tokens of that shape.

        Of a `mask` `[1, 1, T, T]` bool the last axis says which tokens each one attends to; None: all.
        """
        for _ in range(self.blocks):
            attention = nn.MultiHeadDotProductAttention(num_heads=self.heads, dtype=self.dtype)
            hidden = self.block(hidden, embedding, attention, mask)
        return hidden

    def block(
        self, hidden: Array, embedding: Array, attention: nn.Module, mask: Array | None = None
    ) -> Array:
        """`[B, T, features]` of the same: attention and two layers; called within `__call__` alone."""
        # A branch that is taken from a cache uses none of its layers, which count the names nevertheless.
        gates = [_Gate(self.dtype) for _ in range(2)]
        modulate = [Modulate(self.dtype) for _ in range(2)]
        layers = [nn.Dense(width, dtype=self.dtype) for width in (4 * self.features, self.features)]
        heard = self.attend(hidden, embedding, modulate[0], attention, mask)
        hidden = hidden + gates[0](heard, embedding)
        return hidden + gates[1](self.think(hidden, embedding, modulate[1], layers), embedding)

    def read(self, hidden: Array, embedding: Array, channels: int, name: str | None = None) -> Array:
        """`[B, T, channels]`, what the tokens say at last; called within `__call__` alone."""
        hidden = Modulate(self.dtype)(_norm(hidden, self.dtype), embedding)
        return nn.Dense(channels, dtype=jnp.float32, name=name)(hidden)

    @branch("attention")
    def attend(
        self,
        hidden: Array,
        embedding: Array,
        modulate: Modulate,
        attention: nn.Module,
        mask: Array | None = None,
    ) -> Array:
        """`[B, T, features]`, what the time steps tell one another, before its gate."""
        return attention(modulate(_norm(hidden, self.dtype), embedding), mask=mask)  # type: ignore[operator]

    @branch("feed_forward")
    def think(self, hidden: Array, embedding: Array, modulate: Modulate, layers: list[nn.Dense]) -> Array:
        """`[B, T, features]`, two layers of every time step, before its gate."""
        return layers[1](nn.gelu(layers[0](modulate(_norm(hidden, self.dtype), embedding))))


def _norm(x: Array, dtype: Any) -> Array:
    return nn.LayerNorm(use_bias=False, use_scale=False, dtype=dtype)(x)


class Mixer(nn.Module):
    """Token and channel mixing (arXiv 2105.01601): matrix products only; fixed to one length."""

    features: int = 128
    blocks: int = 3
    expansion: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        channels, length = x.shape[1:][::-1]
        embedding = NoiseEmbedding(self.features, dtype=self.dtype)(c_noise, condition)
        hidden = nn.Dense(self.features, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            normed = nn.LayerNorm(dtype=self.dtype)(hidden)
            mixed = nn.silu(nn.Dense(2 * length, dtype=self.dtype)(jnp.swapaxes(normed, 1, 2)))
            hidden = hidden + jnp.swapaxes(nn.Dense(length, dtype=self.dtype)(mixed), 1, 2)
            normed = nn.LayerNorm(dtype=self.dtype)(hidden)
            wide = nn.Dense(self.expansion * self.features, dtype=self.dtype)(normed)
            wide = nn.silu(Modulate(self.dtype)(wide, embedding))
            hidden = hidden + nn.Dense(self.features, dtype=self.dtype)(wide)
        hidden = nn.silu(nn.LayerNorm(dtype=self.dtype)(hidden))
        return nn.Dense(channels, dtype=jnp.float32)(hidden)
