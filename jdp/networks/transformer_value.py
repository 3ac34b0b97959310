"""A transformer that judges trajectories (the critic of Diffusion Veteran, arXiv 2503.00535)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.layers import NoiseEmbedding
from jdp.networks.transformer import positions


class TransformerValue(nn.Module):
    """Pre-norm attention over time steps; the first one says the number, `[B, T, D] -> [B]`.

    `features=256, blocks=2` are the published ones. The noise level and a condition are added to every token.
    """

    features: int = 256
    blocks: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        level = c_noise.reshape(c_noise.shape[0], -1).max(-1)
        dtype, heads = self.dtype, max(self.features // 32, 1)
        embedding = NoiseEmbedding(self.features, dtype=dtype)(level, condition)
        hidden = nn.Dense(self.features, dtype=dtype)(x)
        hidden = hidden + positions(x.shape[1], self.features).astype(dtype)[None]
        hidden = hidden + nn.Dense(self.features, dtype=dtype)(embedding)
        for _ in range(self.blocks):
            normed = nn.LayerNorm(dtype=dtype)(hidden)
            hidden = hidden + nn.MultiHeadDotProductAttention(heads, dtype=dtype)(normed)
            wide = nn.gelu(nn.Dense(4 * self.features, dtype=dtype)(nn.LayerNorm(dtype=dtype)(hidden)))
            hidden = hidden + nn.Dense(self.features, dtype=dtype)(wide)
        return nn.Dense(1, dtype=jnp.float32)(nn.LayerNorm(dtype=dtype)(hidden[:, 0]))[:, 0]
