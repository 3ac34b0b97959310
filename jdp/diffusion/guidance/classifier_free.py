"""Guidance by a condition that the network was trained with and without (arXiv 2207.12598)."""

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import Denoiser, bind, expand


def flagged(condition: Array, given: Array) -> Array:
    """`[B, C + 1]`, the condition `[B, C]` and a flag 1; zeros in the rows where `given` `[B]` is False.

    What a network sees that learns with its condition and without it: zeros alone might be a condition.
    """
    flag = given.astype(condition.dtype)[:, None]
    return jnp.concatenate([flag * condition, flag], axis=-1)


def _classifier_free(
    conditional: Denoiser, unconditional: Denoiser, weight: Array, x: Array, sigma: Array
) -> Array:
    free = unconditional(x, sigma)
    return free + expand(weight, x) * (conditional(x, sigma) - free)


def classifier_free(conditional: Denoiser, unconditional: Denoiser, weight: Array | float = 1.0) -> Partial:
    """`D_u + w (D_c - D_u)` (arXiv 2207.12598, equation 6, where `w` is `1 + w` here).

    0 is the unconditional denoiser and 1 the conditional one, which is all that is exact; above 1 the
    condition is exaggerated. `weight` is `[]` or a prefix of the shape of `x`. Two network calls.
    """
    return bind(_classifier_free, conditional, unconditional, jnp.asarray(weight, jnp.float32))


def _doubled(both: Denoiser, weight: Array, x: Array, sigma: Array) -> Array:
    sigma = jnp.broadcast_to(sigma, x.shape[: max(sigma.ndim, 1)])
    conditional, free = jnp.split(both(jnp.concatenate([x, x]), jnp.concatenate([sigma, sigma])), 2)
    return free + expand(weight, x) * (conditional - free)


def classifier_free_doubled(both: Denoiser, weight: Array | float = 1.0) -> Partial:
    """`classifier_free` in one call of twice the batch.

    `both` is the denoiser of `2 B` rows, the first `B` with their condition and the others without: of a
    network with a condition, `edm(conditioned(apply), (params, concatenate([condition, none])))`.
    """
    return bind(_doubled, both, jnp.asarray(weight, jnp.float32))
