"""A transformer of noised actions and of a channel that arrives while they are executed."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.layers import NoiseEmbedding
from jdp.networks.transformer import DiffusionTransformer, positions


def causal(length: int) -> Array:
    """`[2 T, 2 T]` bool, of T tokens of the channel and then T of actions: who (row) attends to whom.

    Step t of either attends to the channel up to t, and that of the actions to the actions up to t too.
    """
    before = jnp.tril(jnp.ones((length, length), bool))
    nothing = jnp.zeros_like(before)
    return jnp.concatenate(
        [jnp.concatenate([before, nothing], axis=1), jnp.concatenate([before, before], axis=1)]
    )


class CausalChunk(DiffusionTransformer):
    """`(x [B, T, D], c_noise [B], (seen [B, C], channel [B, T, F])) -> [B, T, D]` (arXiv 2512.10946).

    What is said of step t depends on the channel and on the noised actions up to t, to the last bit: later
    ones may be anything that is finite. What was `seen` enters with the noise level.
    """

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: tuple[Array, Array]) -> Array:
        seen, channel = condition
        length, channels = x.shape[1:]
        embedding = NoiseEmbedding(self.features, dtype=self.dtype)(c_noise, seen)
        at = positions(length, self.features).astype(self.dtype)[None]
        tokens = [
            nn.Dense(self.features, dtype=self.dtype, name=name)(part) + at
            for name, part in (("channel", channel), ("actions", x))
        ]
        mask = causal(length)[None, None]
        hidden = self.transform(jnp.concatenate(tokens, axis=1), embedding, mask)[:, length:]
        return self.read(hidden, embedding, channels, name="out")
