"""A cheap judge of trajectories."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.layers import NoiseEmbedding, halve
from jdp.networks.temporal_unet import ResidualBlock


class PooledValue(nn.Module):
    """Residual convolutions at falling resolutions and a mean over time, `[B, T, D] -> [B]`."""

    features: int = 32
    blocks: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        level = c_noise.reshape(c_noise.shape[0], -1).max(-1)
        embedding = NoiseEmbedding(2 * self.features, dtype=self.dtype)(level, condition)
        hidden = nn.Dense(self.features, dtype=self.dtype)(x)
        for i in range(self.blocks):
            hidden = ResidualBlock(self.features * 2**i, dtype=self.dtype)(hidden, embedding)
            hidden = halve(hidden) if i + 1 < self.blocks else hidden
        pooled = nn.silu(nn.LayerNorm(dtype=self.dtype)(hidden)).mean(axis=1)
        hidden = jnp.concatenate([pooled, hidden[:, 0]], axis=-1)
        hidden = nn.silu(nn.Dense(4 * self.features, dtype=self.dtype)(hidden))
        return nn.Dense(1, dtype=jnp.float32)(hidden)[:, 0]
