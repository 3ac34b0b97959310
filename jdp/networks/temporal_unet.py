"""Temporal U-Nets: the one of policy-guided diffusion, and a smaller residual one."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.layers import (
    Modulate,
    NoiseEmbedding,
    TemporalConv,
    embedding_pyramid,
    halve,
    stretch,
)


def _max_pool(x: Array) -> Array:
    if x.shape[1] == 1:
        return x
    length = x.shape[1] // 2 * 2
    return jnp.maximum(x[:, 0:length:2], x[:, 1:length:2])


class TemporalUNet(nn.Module):
    """The U-Net of policy-guided diffusion (arXiv 2404.06356; sizes of its public code).

    Encoder blocks of widths `features * 2^i` with a max-pool between them, a mirrored decoder,
    group norm and ReLU, no residuals. `features=1024` has 177.6 M parameters at 16 channels.
    Group norm averages over time, so outputs depend on the length: sample the training length.
    """

    features: int = 128
    blocks: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        channels = x.shape[-1]
        embed = NoiseEmbedding(self.features, self.features // 8, 1e-4, self.dtype)
        embeddings = embedding_pyramid(embed(c_noise, condition), self.blocks)

        def conv(hidden: Array, width: int, kernel_size: int, embedding: Array | None = None) -> Array:
            hidden = TemporalConv(width, kernel_size, self.dtype)(hidden)
            if embedding is not None:
                hidden = hidden + nn.Dense(width, dtype=self.dtype)(embedding)
            return nn.relu(nn.GroupNorm(num_groups=8, dtype=self.dtype)(hidden))

        hidden, skips = x, []
        for i, embedding in enumerate(embeddings):
            width = self.features * 2**i
            hidden = conv(conv(hidden, width, 3, embedding), width, 3)
            skips.append(hidden)
            if i + 1 < self.blocks:
                hidden = _max_pool(hidden)
        for i in reversed(range(self.blocks - 1)):
            width = self.features * 2**i
            hidden = conv(stretch(hidden, skips[i].shape[1]), width, 2, embeddings[i])
            hidden = jnp.concatenate([hidden, skips[i]], axis=-1)
            hidden = conv(conv(hidden, width, 3), width, 3)
        return nn.Dense(channels, dtype=jnp.float32)(hidden)


class ResidualBlock(nn.Module):
    """Norm, convolution, modulation by the noise level, convolution; added to the input."""

    features: int
    kernel_size: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        hidden = nn.LayerNorm(dtype=self.dtype)(x)
        hidden = TemporalConv(self.features, self.kernel_size, self.dtype)(hidden)
        hidden = nn.silu(Modulate(self.dtype)(hidden, embedding))
        hidden = TemporalConv(self.features, self.kernel_size, self.dtype)(hidden)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype)(x)
        return x + hidden


class ResidualUNet(nn.Module):
    """A residual temporal U-Net with layer norm over channels, so any length may be sampled."""

    features: int = 32
    blocks: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        channels = x.shape[-1]
        embedding = NoiseEmbedding(4 * self.features, dtype=self.dtype)(c_noise, condition)
        embeddings = embedding_pyramid(embedding, self.blocks)
        hidden, skips = nn.Dense(self.features, dtype=self.dtype)(x), []
        for i, embedding in enumerate(embeddings):
            hidden = ResidualBlock(self.features * 2**i, dtype=self.dtype)(hidden, embedding)
            if i + 1 < self.blocks:
                skips.append(hidden)
                hidden = halve(hidden)
        for i in reversed(range(self.blocks - 1)):
            hidden = jnp.concatenate([stretch(hidden, skips[i].shape[1]), skips[i]], axis=-1)
            hidden = ResidualBlock(self.features * 2**i, dtype=self.dtype)(hidden, embeddings[i])
        hidden = nn.silu(nn.LayerNorm(dtype=self.dtype)(hidden))
        return nn.Dense(channels, dtype=jnp.float32)(hidden)
