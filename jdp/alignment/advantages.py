"""Advantages of groups: what a sample's reward says beside those of others at the same condition.

Rewards are `[P, K]`, K samples at each of P conditions; so are advantages. All are pure functions of arrays,
so groups may lie on several devices.
"""

import jax.numpy as jnp
from jax import Array


def centred(reward: Array) -> Array:
    """Less the group's mean."""
    return reward - jnp.mean(reward, axis=1, keepdims=True)


def group(reward: Array) -> Array:
    """Less the group's mean, over its standard deviation (GRPO, arXiv 2402.03300); 0 where all are equal."""
    return centred(reward) / (jnp.std(reward, axis=1, keepdims=True) + 1e-4)


def leave_one_out(reward: Array) -> Array:
    """Less the mean of the others (RLOO, arXiv 2402.14740): `K / (K - 1)` times `centred`."""
    count = reward.shape[1]
    return centred(reward) * (count / (count - 1))


def to_go(terms: Array) -> Array:
    """`[n, ...]`: what follows after each step, of `terms` `[n, ...]`: `sum_{s > t} terms[s]`."""
    return jnp.cumsum(terms[::-1], axis=0)[::-1] - terms


def optimality(reward: Array) -> Array:
    """Within [0, 1]: the group's advantage, cut to +-5 and mapped (DiffusionNFT, arXiv 2509.16117)."""
    return jnp.clip(group(reward), -5.0, 5.0) / 10 + 0.5
