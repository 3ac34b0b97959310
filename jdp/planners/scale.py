"""The coordinates that planners work in: standardised observations, actions and goals."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.segments import SegmentRows, absorbing
from jdp.types import AnyArray, Spec

FLOOR = 1e-4  # of a standard deviation: a constant channel stays where it is


def _row(x: Array, like: Array) -> Array:
    return jnp.expand_dims(x, tuple(range(like.ndim - 1)))


class Affine(NamedTuple):
    """`(x - mean) / std` over the last axis."""

    mean: Array  # [D]
    std: Array  # [D]

    def __call__(self, x: Array) -> Array:
        """`[..., D]`, in the units of the task to standardised."""
        return (x - _row(self.mean, x)) / _row(self.std, x)

    def inverse(self, x: Array) -> Array:
        """`[..., D]`, standardised to the units of the task."""
        return x * _row(self.std, x) + _row(self.mean, x)


def affine(x: AnyArray, where: AnyArray | None = None) -> Affine:
    """Mean and standard deviation of the rows of `x` `[..., D]`; a constant channel keeps std 1.

    `where` `[...]` bool: which rows count (all).
    """
    rows = jnp.asarray(x).reshape(-1, x.shape[-1])
    count = None if where is None else jnp.asarray(where).reshape(-1, 1)
    std = jnp.std(rows, axis=0, where=count)
    return Affine(jnp.mean(rows, axis=0, where=count), jnp.where(std > FLOOR, std, 1.0))


class Scale(NamedTuple):
    """Statistics of a dataset, fixed when training begins."""

    observation: Affine  # [O]
    action: Affine  # [A]
    value: Affine  # [1], of discounted returns to go

    def goal(self, goal: Array, spec: Spec) -> Array:
        """`[..., G]`, a goal standardised as the observation's entries that it prescribes."""
        entries = jnp.array(spec.goal, jnp.int32)
        return Affine(self.observation.mean[entries], self.observation.std[entries])(goal)


def fit_scale(rows: SegmentRows) -> Scale:
    """The statistics of a dataset's rows."""
    value = affine(jnp.asarray(rows.value)[..., None], ~absorbing(rows))
    return Scale(affine(rows.observation), affine(rows.action), value)


class Span(NamedTuple):
    """The least and the greatest value of a dataset."""

    low: Array  # []
    high: Array  # []

    def __call__(self, value: Array) -> Array:
        """`[...]`, the least to 0, the greatest to 1."""
        return (value - self.low) / (self.high - self.low)

    def inverse(self, share: Array) -> Array:
        """`[...]`, 0 to the least, 1 to the greatest."""
        return self.low + share * (self.high - self.low)


def fit_span(rows: SegmentRows) -> Span:
    """The range of the values of a dataset's rows; of one value only, it ends 1 above."""
    value, real = jnp.asarray(rows.value), ~absorbing(rows)
    low = jnp.min(value, where=real, initial=jnp.inf)
    high = jnp.max(value, where=real, initial=-jnp.inf)
    return Span(low, jnp.where(high - low > FLOOR, high, low + 1.0))


def clip_action(action: Array) -> Array:
    """Into the box [-1, 1]."""
    return jnp.clip(action, -1.0, 1.0)


def with_goal(observation: Array, goal: Array, horizon: int, extra: int, spec: Spec) -> tuple[Array, Array]:
    """`(known, mask)` `[B, T, O + extra]`: the present in row 0, and the goal's entries in the last row.

    `observation` `[B, O]` and `goal` `[B, G]` are standardised; without goals only row 0 is known. `extra`
    entries (actions) follow the observation in a row and are known nowhere.
    """
    batch, dim = observation.shape
    known = jnp.zeros((batch, horizon, dim + extra), observation.dtype)
    known = known.at[:, 0, :dim].set(observation)
    if spec.goal:
        known = known.at[:, -1, jnp.array(spec.goal)].set(goal)
    return known, jnp.broadcast_to(known_mask(horizon, dim, extra, spec)[None], known.shape)


def known_mask(horizon: int, dim: int, extra: int, spec: Spec) -> Array:
    """`[T, O + extra]` bool, the entries that `with_goal` knows."""
    mask = jnp.zeros((horizon, dim + extra), bool).at[0, :dim].set(True)
    return mask.at[-1, jnp.array(spec.goal)].set(True) if spec.goal else mask
