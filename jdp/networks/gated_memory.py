"""A memory of fixed size that evolves by gated attention: SEGA (SeedPolicy, arXiv 2603.05117)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jdp.networks.layers import Precision, dtype_of
from jdp.types import Bound, Network, Params

LONGEST = 100.0  # steps that the slowest slot keeps what it holds, before it has learned anything


def _slow(key: Array, shape: tuple[int, ...]) -> Array:
    """Biases of gates by which slots forget in 1 to `LONGEST` steps: what fades at once teaches nothing later
    (chrono initialisation, arXiv 1804.11188)."""
    del key
    return -jnp.log(jnp.geomspace(1.0, LONGEST, shape[0])).reshape(shape)


class GatedMemory(nn.Module):
    """One step: `(memory [B, M, F], observation [B, O]) -> (memory [B, M, F], enhanced [B, tokens * F])`.

    The observation becomes a few tokens. The memory attends to them, and the scores of that attention say how
    much of it is replaced: `M' = g M_new + (1 - g) M`. The tokens attend to the memory as it was, and are
    added to what they find. A memory of zeros is an empty one.
    """

    features: int = 64
    slots: int = 8
    tokens: int = 4
    heads: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, memory: Array, observation: Array) -> tuple[Array, Array]:
        dtype, width = self.dtype, self.features
        tokens = nn.Dense(self.tokens * width, dtype=dtype)(observation).reshape(-1, self.tokens, width)
        tokens = nn.LayerNorm(dtype=dtype)(nn.gelu(tokens))
        names = self.param("slots", nn.initializers.normal(1.0), (self.slots, width))
        held = nn.LayerNorm(dtype=dtype)(memory + names[None].astype(memory.dtype))
        found, scores = self._attend(held, tokens, "write")
        # [B, M, heads * tokens]: each slot's gate is a function of its own raw scores.
        scores = jnp.moveaxis(scores, 1, 2).reshape(*memory.shape[:2], -1)
        bias = self.param("bias", _slow, (self.slots, 1))
        gate = jax.nn.sigmoid(nn.Dense(1, use_bias=False)(scores) + bias[None])
        recalled, _ = self._attend(tokens, held, "read")
        enhanced = tokens + recalled
        return gate * jnp.tanh(found) + (1 - gate) * memory, enhanced.reshape(enhanced.shape[0], -1)

    def _attend(self, queries: Array, keys: Array, name: str) -> tuple[Array, Array]:
        """What `[B, Q, F]` find in `[B, K, F]`, and the raw scores `[B, heads, Q, K]`."""
        width, heads = self.features, self.heads

        def split(x: Array, part: str) -> Array:
            x = nn.Dense(width, dtype=self.dtype, name=f"{name}_{part}")(x)
            return x.reshape(*x.shape[:2], heads, width // heads)

        q, k, v = split(queries, "query"), split(keys, "key"), split(keys, "value")
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / (width // heads) ** 0.5
        found = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(*queries.shape)
        return nn.Dense(width, dtype=jnp.float32, name=f"{name}_out")(found), scores.astype(jnp.float32)


def _init(key: Array, memory: Array, observation: Array, *, module: nn.Module) -> Params:
    return module.init(key, memory, observation)


def _apply(params: Params, memory: Array, observation: Array, *, module: nn.Module) -> tuple[Array, Array]:
    return module.apply(params, memory, observation)  # pyright: ignore[reportReturnType]


def gated_memory(features: int, slots: int, tokens: int, precision: Precision = "float32") -> Network:
    """`init(key, memory, observation)` and `apply(params, memory, observation)` of `GatedMemory`."""
    settings = (("module", GatedMemory(features, slots, tokens, dtype=dtype_of(precision))),)
    return Network(Bound(_init, settings), Bound(_apply, settings))
