"""Weighted matching: what methods share that learn from noised samples, and need no density of chains.

A sample is noised to a few levels; how well the denoiser finds it again there stands in the place of a log
density. Levels are those of a rectified flow, `sigma = t / (1 - t)`, where the error is that of its velocity,
`|D - x0|^2 / t^2`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment.learner import AlignConfig
from jdp.alignment.models import Model
from jdp.errors import check_settings
from jdp.types import Params, expand, named_keys


@dataclass(frozen=True)
class MatchingConfig(AlignConfig):
    """Settings of weighted matching."""

    levels: int = 6
    """Levels that each sample is noised to, in an update."""
    least: float = 0.02
    """The lowest time of the flow; the highest is as far from 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, levels=(self.levels, 1, 10_000), least=(self.least, 1e-4, 0.5))


class Noised(NamedTuple):
    """Samples and what is added to them, `[R, ...]`."""

    shown: Array  # [R, C]
    x0: Array  # [R, *event]
    time: Array  # [R], of the flow
    noise: Array  # [R, *event]

    @property
    def sigma(self) -> Array:
        """`[R]`, levels."""
        return self.time / (1 - self.time)


def noised(key: Array, x0: Array, condition: Array, config: MatchingConfig) -> Noised:
    """Every sample of `x0` `[B, *event]` at `config.levels` = M levels, `[B * M, ...]`; consumes the key.

    Times of one sample are stratified: one in each M-th of the range.
    """
    keys, count = named_keys(key, "time", "noise"), config.levels
    share = (
        jax.random.uniform(keys["time"], (len(x0), count)) + jnp.arange(count, dtype=jnp.float32)[None]
    ) / count
    time = (config.least + (1 - 2 * config.least) * share).reshape(-1)
    many, shown = (jnp.repeat(x, count, axis=0) for x in (x0, condition))
    return Noised(shown, many, time, jax.random.normal(keys["noise"], many.shape))


def denoised(params: Params, rows: Noised, model: Model) -> Array:
    """`[R, *event]`, what the denoiser makes of them."""
    x = rows.x0 + expand(rows.sigma, rows.x0) * rows.noise
    return model.denoiser(params, rows.shown)(x, rows.sigma)


def gap(found: Array, other: Array, rows: Noised, model: Model) -> Array:
    """`[R]`, the mean squared difference of the velocities that denoised samples `[R, *event]` say."""
    apart = jnp.square(found - other)
    apart = apart if model.mask is None else jnp.where(model.mask, apart, 0.0)
    return jnp.sum(apart, axis=model.event_axes) / model.size / jnp.square(rows.time)


def error(params: Params, rows: Noised, model: Model) -> Array:
    """`[R]`, of the velocity."""
    return gap(denoised(params, rows, model), rows.x0, rows, model)


def apart(found: Array, reference: Params, rows: Noised, model: Model) -> Array:
    """`[]`, the mean difference of what is `found` `[R, *event]` from what `reference` makes of the rows."""
    return jnp.mean(gap(found, denoised(reference, rows, model), rows, model))
