"""Which tasks, and which groups of data, are learned from more: curricula, and weights by the worst group."""

import jax
import jax.numpy as jnp
from jax import Array


def averaged_success(average: Array, task: Array, success: Array, rate: float = 0.05) -> Array:
    """`[N]`, the moving averages `average` of N tasks after episodes of `task` `[B]` with `success` `[B]`.

    Each episode moves its task's average by `rate` of the way, those of one task one after another alike.
    """
    count = jnp.zeros_like(average).at[task].add(1.0)
    total = jnp.zeros_like(average).at[task].add(success)
    kept = (1 - rate) ** count
    return kept * average + (1 - kept) * total / jnp.maximum(count, 1.0)


def by_success(success: Array, *, low: float = 0.2, high: float = 0.8, least: float = 0.02) -> Array:
    """`[N]`, weights of N tasks that sum to 1: of what succeeds between `low` and `high` of the time most.

    What always or never succeeds teaches a group of episodes nothing: all its advantages are 0. Outside of
    the band weights fall evenly, at 0 and 1 to `least` of the full one, so that what was learned, or could
    not be, is met again.
    """
    inside = jnp.clip(jnp.minimum(success / low, (1 - success) / (1 - high)), 0.0, 1.0)
    weights = least + (1 - least) * inside
    return weights / jnp.sum(weights)


def by_difficulty(difficulty: Array, progress: Array | float, stages: int = 3) -> Array:
    """`[N]`, weights of N tasks in a curriculum from easy to hard (CRAFT-GUI, arXiv 2508.11360).

    Tasks are ranked by `difficulty` `[N]`, for instance the steps of their shortest demonstration, and fall
    in as many equal `stages`. At `progress` from 0 to 1 of the training the first stages are drawn from,
    evenly: one of them at first, all at last.
    """
    rank = jnp.argsort(jnp.argsort(difficulty))
    stage = jnp.minimum(jnp.floor(jnp.asarray(progress, jnp.float32) * stages), stages - 1)
    weights = (rank.astype(jnp.float32) < (stage + 1) / stages * difficulty.shape[0]).astype(jnp.float32)
    return weights / jnp.sum(weights)


def robust(weights: Array, losses: Array, rate: float) -> Array:
    """`[G]`, weights of G groups after one step of group-robust optimisation (arXiv 1911.08731).

    `q_g exp(rate loss_g)`, normalised: an ascent on the worst group's loss, which a learner that descends on
    `sum_g q_g loss_g` answers. BehaveGPT (arXiv 2505.17631) weighs rare behaviours in this spirit.
    """
    return jax.nn.softmax(jnp.log(weights) + rate * losses)
