"""Advantages of groups: what a sample's reward says beside those of others at the same condition.

Rewards are `[P, K]`, K samples at each of P conditions; so are advantages. All are pure functions of arrays,
so groups may lie on several devices.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.learning.relative import centred as centred
from jdp.learning.relative import group as group


def across(reward: Array) -> Array:
    """Less the group's mean, over the standard deviation of all rewards, as in Flow-GRPO's code."""
    return centred(reward) / (jnp.std(reward) + 1e-4)


def extremes(score: Array, high: float, low: float) -> Array:
    """`[P, K]` bool: a group's best where it is at least `high`, and its worst where that is below `low`."""
    places = jnp.arange(score.shape[1])[None]
    best = places == jnp.argmax(score, axis=1, keepdims=True)
    worst = places == jnp.argmin(score, axis=1, keepdims=True)
    return (best & (score >= high)) | (worst & (score < low))


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


def process(reward: Array) -> Array:
    """`[n, P, K]`, of every step of chains, of the rewards `[n, P, K]` of what it took the sample to be.

    What the step gained, plus the mean of what later ones reach (of the last one its own reward), normalised
    over the group step by step (MDPO, arXiv 2508.13148, as in its authors' code, whose added 1 drops out).
    Tokens and continuous samples alike: the reward of a denoised `x0_hat` will do.
    """
    gain = reward - jnp.concatenate([jnp.zeros_like(reward[:1]), reward[:-1]])
    left = jnp.arange(len(reward) - 1, 0, -1, dtype=reward.dtype)[:, None, None]
    later = jnp.concatenate([to_go(reward)[:-1] / left, reward[-1:]])
    return jax.vmap(group)(gain + later)


def largest(advantage: Array, count: int) -> Array:
    """`[count]` int32, the steps of `[n, P, K]` whose advantages are the largest, signs aside."""
    return jax.lax.top_k(jnp.sum(jnp.abs(advantage), axis=(1, 2)), count)[1]


SPREADS = {"batch": across, "group": group, "none": centred}  # by whose standard deviation they are divided
