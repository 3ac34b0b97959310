"""Training losses of masked diffusion: `(key, apply, params, tokens, ...) -> (scalar, metrics)`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.discrete import masking
from jdp.diffusion.discrete.likelihood import counted, elbo
from jdp.types import Metrics, Params, bind, named_keys


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


def linear_cross_entropy(
    key: Array, apply: Callable[..., Array], params: Params, tokens: Array, *, levels: int, mask: int
) -> tuple[Array, Metrics]:
    """Cross-entropy of tokens `[B, L]` in nats a hidden token, of T = `levels`; the key is consumed.

    At one of the steps t of 0 to T - 1 a token is hidden with probability (t + 1) / T, and counts
    (T - t) / T: the more is shown, the more (Zheng et al. 2023, arXiv 2302.05737; DiffuSearch, arXiv
    2502.19805). A row that would show everything hides one token.
    """
    keys = named_keys(key, "step", "mask")
    step = jax.random.randint(keys["step"], tokens.shape[:1], 0, levels).astype(jnp.float32)
    u = jax.random.uniform(keys["mask"], tokens.shape)
    hidden = u <= jnp.maximum((step + 1) / levels, u.min(-1))[:, None]
    found = masking.predicted(bind(apply, params), masking.hide(tokens, hidden, mask), mask)
    nats = -found.log_prob(tokens, mask=hidden) * (levels - step) / levels
    loss = jnp.sum(nats) / jnp.sum(hidden, dtype=jnp.float32)
    return loss, {"loss": loss}
