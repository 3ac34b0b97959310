"""Samplers of masked diffusion: every step predicts all masked tokens, and keeps the surest of them.

The orders are those of MaskGIT and LLaDA (arXiv 2202.04200, 2502.09992); with `remask`, that of MDPO's
running confidence (arXiv 2508.13148). One token a step in an order that does not look at the tokens drawn
("random", "entropy") draws exactly from a distribution whose conditionals the denoiser knows; "confidence"
prefers likely ones. For steps that show tokens independently of each other, see `transitions.step`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.discrete.masking import hide, predicted, ranks
from jdp.distributions import Categorical
from jdp.errors import check_choices, check_settings
from jdp.types import TokenDenoiser, named_keys


@dataclass(frozen=True)
class Unmasking:
    """How tokens are drawn."""

    steps: int = 8
    """Calls of the denoiser; each shows about L / steps tokens more."""
    order: Literal["confidence", "entropy", "random"] = "confidence"
    """Which tokens are shown first: those drawn with the highest probability, those whose distribution has
    the lowest entropy, or any."""
    remask: bool = False
    """Whether shown tokens compete with new ones by the highest score they ever had, and may be masked again;
    without it what is shown stays."""
    greedy: bool = False
    """Whether each token is the most likely one, instead of drawn."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_settings(type(self).__name__, steps=(self.steps, 1, 1_000_000))


class Unmasked(NamedTuple):
    """A chain of n steps."""

    states: Array  # [n + 1, B, L], from what was given to what was drawn
    predictions: Array  # [n, B, L], what each step took the whole sequence to be

    @property
    def tokens(self) -> Array:
        """`[B, L]`, what was drawn."""
        return self.states[-1]


def _score(key: Array, found: Categorical, x0: Array, order: str) -> Array:
    """`[B, L]`, higher for what is shown first; the key is consumed."""
    if order == "random":
        return jax.random.uniform(key, x0.shape)
    if order == "confidence":
        return found.log_prob(x0, event_axes=())
    flat = Categorical(jnp.zeros_like(found.logits))
    return found.kl(flat, event_axes=())  # ln V less the entropy


def unmask(key: Array, denoiser: TokenDenoiser, tokens: Array, sampling: Unmasking, mask: int) -> Unmasked:
    """The chain that draws all masked ones of `tokens` `[B, L]`; what is given stays. The key is consumed."""
    free = tokens == mask
    number = jnp.sum(free, axis=-1, dtype=jnp.float32)

    def body(carry: tuple[Array, Array], item: tuple[Array, Array]):
        (tokens, best), (key, left) = carry, item
        keys, hidden = named_keys(key, "tokens", "order"), tokens == mask
        found = predicted(denoiser, tokens, mask)
        taken = jnp.argmax(found.logits, -1) if sampling.greedy else found.sample(keys["tokens"])
        x0 = jnp.where(hidden, taken.astype(tokens.dtype), tokens)
        score = _score(keys["order"], found, x0, sampling.order)
        best = jnp.where(hidden, jnp.maximum(best, score) if sampling.remask else score, best)
        again = ranks(best) < jnp.round(number * left).astype(jnp.int32)[:, None]
        following = hide(x0, again, mask)
        held = best if sampling.remask else jnp.where(again, best, jnp.inf)
        return (following, held), (following, x0)

    left = 1 - (jnp.arange(sampling.steps, dtype=jnp.float32) + 1) / sampling.steps
    begun = (tokens, jnp.where(free, -jnp.inf, jnp.inf))
    _, (states, predictions) = jax.lax.scan(body, begun, (jax.random.split(key, sampling.steps), left))
    return Unmasked(jnp.concatenate([tokens[None], states]), predictions)
