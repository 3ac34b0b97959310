"""The training loss of masked diffusion: `(key, apply, params, tokens, ...) -> (scalar, metrics)`."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jdp.diffusion.discrete.likelihood import counted, elbo
from jdp.types import Metrics, Params, bind


def masked_cross_entropy(
    key: Array, apply: Callable[..., Array], params: Params, tokens: Array, *, mask: int
) -> tuple[Array, Metrics]:
    """Minus the ELBO of tokens `[B, L]` in nats a token, with one mask a row; the key is consumed.

    `apply(params, tokens, level)` gives logits. A mask hides 1 to L tokens, all numbers alike (LLaDA, arXiv
    2502.09992).
    """
    bound = elbo(bind(apply, params), tokens, counted(key, tokens.shape, 1), mask)
    loss = -jnp.mean(bound) / tokens.shape[1]
    return loss, {"loss": loss}
