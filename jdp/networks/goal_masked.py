"""What is seen, and a goal that may be hidden from attention, as one vector."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.layers import Precision, dtype_of
from jdp.networks.transformer import positions
from jdp.types import Bound, Network, Params


class GoalMasked(nn.Module):
    """Attention over observations and a goal (NoMaD, arXiv 2310.07896), whose tokens are averaged.

    `(observations [B, H, O], goal [B, G], present [B] bool) -> [B, features]`. Where the goal is not present
    no token attends to it, and it is left out of the average: the result does not depend on what it says.
    """

    features: int = 256
    blocks: int = 2
    heads: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, observations: Array, goal: Array, present: Array) -> Array:
        dtype, count = self.dtype, observations.shape[1]
        hidden = nn.Dense(self.features, dtype=dtype)(observations)
        seen = jnp.ones((hidden.shape[0], count), bool)
        if goal.shape[-1]:
            token = nn.Dense(self.features, dtype=dtype)(goal)[:, None]
            hidden, seen = (
                jnp.concatenate([hidden, token], axis=1),
                jnp.concatenate([seen, present[:, None]], 1),
            )
        hidden = hidden + positions(hidden.shape[1], self.features).astype(dtype)[None]
        mask = seen[:, None, None, :]  # [B, heads, queries, keys]
        for _ in range(self.blocks):
            normed = nn.LayerNorm(dtype=dtype)(hidden)
            hidden = hidden + nn.MultiHeadDotProductAttention(self.heads, dtype=dtype)(normed, mask=mask)
            wide = nn.gelu(nn.Dense(4 * self.features, dtype=dtype)(nn.LayerNorm(dtype=dtype)(hidden)))
            hidden = hidden + nn.Dense(self.features, dtype=dtype)(wide)
        weight = seen.astype(jnp.float32)[..., None]
        hidden = nn.LayerNorm(dtype=jnp.float32)(hidden)
        return jnp.sum(jnp.where(weight > 0, hidden, 0.0), axis=1) / jnp.sum(weight, axis=1)


def _init(key: Array, *seen: Array, module: nn.Module) -> Params:
    return module.init(key, *seen)


def _apply(params: Params, *seen: Array, module: nn.Module) -> Array:
    return module.apply(params, *seen)  # pyright: ignore[reportReturnType]


def goal_masked(features: int, blocks: int, precision: Precision = "float32") -> Network:
    """`init(key, observations, goal, present)` and `apply(params, observations, goal, present)`."""
    settings = (("module", GoalMasked(features, blocks, dtype=dtype_of(precision))),)
    return Network(Bound(_init, settings), Bound(_apply, settings))
