"""A transformer that judges trajectories (the critic of Diffusion Veteran, arXiv 2503.00535)."""

import flax.linen as nn
from jax import Array

from jdp.networks.layers import NoiseEmbedding
from jdp.networks.transformer import positions


class TransformerValue(nn.Module):
    """Pre-norm attention over time steps; the first one says the number, `[B, T, D] -> [B]`.

    `features=256, blocks=2` are the published ones. The noise level and a condition are added to every token.
    """

    features: int = 256
    blocks: int = 2

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        level = c_noise.reshape(c_noise.shape[0], -1).max(-1)
        hidden = nn.Dense(self.features)(x) + positions(x.shape[1], self.features)[None]
        hidden = hidden + nn.Dense(self.features)(NoiseEmbedding(self.features)(level, condition))
        for _ in range(self.blocks):
            normed = nn.LayerNorm()(hidden)
            hidden = hidden + nn.MultiHeadDotProductAttention(max(self.features // 32, 1))(normed)
            wide = nn.gelu(nn.Dense(4 * self.features)(nn.LayerNorm()(hidden)))
            hidden = hidden + nn.Dense(self.features)(wide)
        return nn.Dense(1)(nn.LayerNorm()(hidden[:, 0]))[:, 0]
