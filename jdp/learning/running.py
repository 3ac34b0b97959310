"""Means and standard deviations that grow with what is seen (Chan, Golub and LeVeque 1983)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.normalise import Affine


class RunningMoments(NamedTuple):
    """Of all rows so far."""

    count: Array  # []
    mean: Array  # [D]
    squares: Array  # [D], sum of squared distances to the mean

    def affine(self, floor: float = 1e-4) -> Affine:
        """The standardiser of these moments; the identity before two rows were seen."""
        std = jnp.sqrt(self.squares / jnp.maximum(self.count, 1.0))
        known = self.count > 1
        return Affine(jnp.where(known, self.mean, 0.0), jnp.where(known, jnp.maximum(std, floor), 1.0))


def no_moments(width: int) -> RunningMoments:
    """Of no rows yet, of `width` = D numbers."""
    return RunningMoments(jnp.zeros(()), jnp.zeros(width), jnp.zeros(width))


def seen(moments: RunningMoments, rows: Array) -> RunningMoments:
    """`moments` after `rows` `[..., D]`: the same, however they are cut into calls."""
    rows = rows.reshape(-1, rows.shape[-1])
    new = jnp.float32(len(rows))
    mean = jnp.mean(rows, axis=0)
    count, gap = moments.count + new, mean - moments.mean
    squares = jnp.sum(jnp.square(rows - mean[None]), axis=0)
    return RunningMoments(
        count,
        moments.mean + gap * new / count,
        moments.squares + squares + jnp.square(gap) * moments.count * new / count,
    )
