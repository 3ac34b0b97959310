"""A residual MLP of noisy vectors that sees a condition beside them."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.branches import branch
from jdp.networks.layers import Modulate, NoiseEmbedding, Precision, dtype_of
from jdp.types import Bound, Network, Params, PyTree

EMBEDDING = 64  # width of the embedding of one level


class ResidualStream(nn.Module):
    """What leads through the residual blocks of `ConditionalMLP`; a module's compact method calls it."""

    features: int = 256
    blocks: int = 3
    groups: tuple[int, ...] = (0,)
    dtype: Any = jnp.float32

    def stream(
        self,
        x: Array,
        c_noise: Array,
        condition: Array,
        told: Array | None = None,
        added: Sequence[Array] = (),
    ) -> list[Array]:
        """`[B, features]` before the first block and after each, to which `added` has one more each.

        What is `told` `[B, K]` scales and shifts what each block adds.
        """
        batch, dtype = x.shape[0], self.dtype
        levels = c_noise[:, None] if c_noise.ndim == 1 else c_noise[:, jnp.array(self.groups)]
        levels = jnp.broadcast_to(levels, (batch, len(self.groups)))
        embedding = NoiseEmbedding(min(EMBEDDING, self.features), dtype=dtype)(levels).reshape(batch, -1)
        embedding = jnp.concatenate([embedding, condition.astype(dtype)], axis=-1)
        embedding = nn.silu(nn.Dense(self.features, dtype=dtype)(embedding))
        hidden = [nn.Dense(self.features, dtype=dtype)(jnp.concatenate([x, condition], axis=-1))]
        for i in range(self.blocks):  # layers are made though a cache may stand for them: names count
            first = (nn.LayerNorm(dtype=dtype), Modulate(dtype))
            layers = [nn.Dense(self.features, dtype=dtype) for _ in range(2)]
            thought = self.think(hidden[-1], embedding, first, layers)
            if told is not None:
                thought = Modulate(dtype, name=f"told_{i}")(thought, told)
            after = hidden[-1] + thought
            hidden.append(after + added[i] if added else after)
        return hidden

    @branch("feed_forward")
    def think(
        self,
        hidden: Array,
        embedding: Array,
        first: tuple[nn.LayerNorm, Modulate],
        layers: list[nn.Dense],
    ) -> Array:
        """`[B, features]`, two layers of what was modulated."""
        norm, modulate = first
        return layers[1](nn.silu(layers[0](nn.silu(modulate(norm(hidden), embedding)))))


class ConditionalMLP(ResidualStream):
    """`(x [B, D], c_noise [B] or [B, D], condition [B, C], told [B, K]) -> [B, D]`.

    The condition enters beside `x`, and with the noise levels through FiLM (arXiv 1709.07871) in every
    block. `groups` holds the entry of `x` where each group of entries with one common level begins: that
    entry's level is embedded for the whole group, so the network knows every group's level precisely.

    What is `told`, where anything is, scales and shifts what every block adds (FiLM, as reasoning is injected
    in arXiv 2412.03293); at first by 1 and 0, so that it says nothing. Another network may have something
    `added` to what each block says, `[B, features]` each.
    """

    @nn.compact
    def __call__(
        self,
        x: Array,
        c_noise: Array,
        condition: Array,
        told: Array | None = None,
        added: Sequence[Array] = (),
    ) -> Array:
        hidden = self.stream(x, c_noise, condition, told, added)[-1]
        last = nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, dtype=jnp.float32)
        return last(nn.silu(hidden))


Condition = Array | tuple[Array, Array]  # [B, C], or it and what is told, [B, K]


def _both(condition: Condition) -> tuple[Array, ...]:
    return condition if isinstance(condition, tuple) else (condition,)


def _init(key: Array, x: Array, c_noise: Array, condition: Condition, *, module: nn.Module) -> Params:
    return module.init(key, x, c_noise, *_both(condition))


def _apply(params: Params, x: Array, c_noise: Array, condition: Condition, *, module: nn.Module) -> Array:
    return module.apply(params, x, c_noise, *_both(condition))  # pyright: ignore[reportReturnType]


def conditional_mlp(
    features: int = 256, blocks: int = 3, groups: tuple[int, ...] = (0,), precision: Precision = "float32"
) -> Network:
    """`init(key, x, c_noise, condition)` and `apply(params, x, c_noise, condition)` of `ConditionalMLP`.

    A condition is an array, or a pair with what is told beside it.
    """
    settings = (("module", ConditionalMLP(features, blocks, groups, dtype_of(precision))),)
    return Network(Bound(_init, settings), Bound(_apply, settings))


def _conditioned(
    both: tuple[Params, PyTree], x: Array, c_noise: Array, *, apply: Callable[..., Any]
) -> Array:
    params, condition = both
    return apply(params, x, c_noise, condition)


def conditioned(apply: Callable[..., Any]) -> Bound:
    """`apply` with `(params, condition)` in the place of its parameters.

    So whatever is made for networks without a condition serves those with one: of
    `jdp.diffusion.edm(conditioned(apply), (params, condition))` both are leaves, and neither new weights
    nor another condition compile anything.
    """
    return Bound(_conditioned, (("apply", apply),))
