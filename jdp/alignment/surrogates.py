"""Surrogates: what is descended in the place of minus the reward; pure functions of arrays.

At ratios of 1 the gradient of each is the policy gradient, `-mean(A grad log p)`.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.learning.ppo import estimated_kl
from jdp.types import Metrics


def rolled_back(size: Array, budget: float, steps: int) -> Array:
    """`size` up to `budget`, from there back to 0 at `budget (1 + 1 / steps)`, and 0 beyond; `size >= 0`.

    The gate of whole chains in FiberPO (arXiv 2603.08239): a mean over `steps` whose every term has fallen
    back by its own change has changed by `steps` times as much.
    """
    return jnp.minimum(size, jnp.maximum((steps + 1) * budget - steps * size, 0.0))


def fibre(
    log_ratio: Array, advantage: Array, *, rise: float, fall: float, residual: float
) -> tuple[Array, Metrics]:
    """FiberPO's ratios, gated at two scales (arXiv 2603.08239): minus the mean of `w_chain r_step A`.

    With `s+` and `s-` the means over a chain of its steps' rises and falls `max(+-log r, 0)`, a chain weighs
    `exp(g(s+) - g(s-))`, `g` rolled back beyond its budget; a step keeps what the chain does not say, `log r`
    less the mean of its own sign plus that of the other one, each within `residual`. Where no gate acts the
    product is the ratio.

    Args:
        log_ratio: `[T, B]`, of the steps of chains.
        advantage: `[T, B]`.
        rise: budget of `s+`.
        fall: budget of `s-`; less than `rise`.
        residual: how far each part of a step's own log ratio may go from 0.
    """
    steps = len(log_ratio)
    up, down = (jnp.mean(jnp.maximum(x, 0.0), axis=0, keepdims=True) for x in (log_ratio, -log_ratio))
    base = jnp.exp(rolled_back(up, rise, steps) - rolled_back(down, fall, steps))
    rises = log_ratio >= 0
    own = jnp.where(rises, log_ratio - up, log_ratio + down)
    others = jnp.where(rises, -down, up)
    own, others = (jnp.clip(x, -residual, residual) for x in (own, others))
    loss = -jnp.mean(base * jnp.exp(own - others) * advantage)
    return loss, {"policy_loss": loss, "approximate_kl": estimated_kl(log_ratio)}


def rebel(change: Array, advantage: Array, scale: float) -> Array:
    """Mean squared residual `scale (d log p(y) - d log p(y')) - (A(y) - A(y'))` of pairs `[N, 2]`.

    REBEL (arXiv 2404.16767, algorithm 1): where it is 0, log ratios are differences of rewards over `scale`.
    At ratios of 1 its gradient is `-2 scale` times the mean of `(A(y) - A(y')) grad (log p(y) - log p(y'))`.
    """
    gap = scale * (change[:, 0] - change[:, 1]) - (advantage[:, 0] - advantage[:, 1])
    return jnp.mean(jnp.square(gap))


def preferred(margin: Array, beta: float) -> tuple[Array, Metrics]:
    """Bradley and Terry's loss, `-mean log sigmoid(beta margin)`, and how often the winner leads."""
    loss = -jnp.mean(jax.nn.log_sigmoid(beta * margin))
    accuracy = jnp.mean((margin > 0).astype(jnp.float32))
    return loss, {"loss": loss, "accuracy": accuracy, "approximate_kl": jnp.zeros(())}
