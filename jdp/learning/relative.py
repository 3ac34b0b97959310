"""What a sample's reward says beside those of its group: critics of nobody, for methods without one.

A group lies along the last axis; there may be any number of others. All are pure functions of arrays.
"""

import jax.numpy as jnp
from jax import Array


def centred(reward: Array) -> Array:
    """Less the group's mean; exactly 0 where all are equal."""
    beside = reward - reward[..., :1]
    return beside - jnp.mean(beside, axis=-1, keepdims=True)


def group(reward: Array, floor: float = 1e-4) -> Array:
    """Less the group's mean, over its standard deviation (GRPO, arXiv 2402.03300); 0 where all are equal.

    `floor` is added to the standard deviation.
    """
    return centred(reward) / (jnp.std(reward, axis=-1, keepdims=True) + floor)
