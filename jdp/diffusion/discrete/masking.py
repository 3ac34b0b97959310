"""Absorbing-state diffusion: tokens `[..., L]` below V, which are hidden behind the mask token V one by one.

At level t every token is masked with probability t, so the level is a time from 0 (data) to 1 (all masked);
what a denoiser is told is the share that is masked (Austin et al. 2021, arXiv 2107.03006; Sahoo et al. 2024,
arXiv 2406.07524).
"""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.distributions import Categorical
from jdp.types import TokenDenoiser


def share(tokens: Array, mask: int) -> Array:
    """`[...]`, of tokens `[..., L]` that are masked."""
    return jnp.mean((tokens == mask).astype(jnp.float32), axis=-1)


def predicted(denoiser: TokenDenoiser, tokens: Array, mask: int) -> Categorical:
    """Over tokens `[..., L]`, what the masked ones are; only theirs mean anything."""
    return Categorical(denoiser(tokens, share(tokens, mask)))


def hide(tokens: Array, hidden: Array, mask: int) -> Array:
    """`tokens` with the mask token where `hidden` says so; of one shape."""
    return jnp.where(hidden, jnp.asarray(mask, tokens.dtype), tokens)


def independent(key: Array, level: Array, length: int, antithetic: bool = False) -> Array:
    """`[*level.shape, L]` bool: every token is hidden with probability `level`; the key is consumed.

    `antithetic`: another axis before the last one, of two masks that hide different tokens where they can.
    """
    u = jax.random.uniform(key, (*level.shape, length))
    if not antithetic:
        return u < level[..., None]
    return jnp.stack([u, 1 - u], axis=-2) < level[..., None, None]


def ranks(score: Array) -> Array:
    """`[..., L]` int32, of scores: 0 for the lowest."""
    return jnp.argsort(jnp.argsort(score, axis=-1), axis=-1).astype(jnp.int32)


def counted(key: Array, count: Array, length: int, antithetic: bool = False) -> Array:
    """`[*count.shape, L]` bool: just `count` tokens are hidden, all sets alike; the key is consumed.

    `antithetic`: as in `independent`.
    """
    order = ranks(jax.random.uniform(key, (*count.shape, length)))
    if not antithetic:
        return order < count[..., None]
    return jnp.stack([order, length - 1 - order], axis=-2) < count[..., None, None]
