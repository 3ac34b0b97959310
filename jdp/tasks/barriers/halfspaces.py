"""The action nearest to a wish that keeps linear conditions `row . u >= bound`, and stays in a box.

The solution of `min |u - wish|^2` is the wish, moved perpendicularly onto the planes of those conditions that
hold with equality ("active"), which are at most as many as an action has entries. So all such sets are tried,
in one program without iterations: of two entries and n conditions, the box among them, 1 + n + n (n - 1) / 2
candidates. The nearest of those that keep all conditions is exact.

Where no action keeps all, the least-violating one is meant: the box holds, and the conditions are relaxed by
the smallest distance `s` for which some action keeps them. That is a linear program in the action and `s`,
solved by its vertices in the same manner; then the nearest action is taken.
"""

from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.errors import UserError

TOLERANCE = 1e-6  # of a condition whose row has length 1, for what float32 rounds
MOST = 5_000  # sets that are tried
_SINGULAR = 1e-6  # a pivot below it: planes that are (nearly) parallel meet nowhere
_INERT = -1e3  # the bound of a row without length, which no action moves


class Projected(NamedTuple):
    """The nearest action, and by how much it fails."""

    action: Array  # [..., A]
    violation: Array  # [...], the distance in actions to the worst condition; 0 where all are kept


def halfspace(wish: Array, row: Array, bound: Array) -> Array:
    """`[..., A]`, the point nearest to `wish` where `row . u >= bound`, in closed form; no box.

    `row` is `[..., A]` and not 0, `bound` `[...]`.
    """
    lacking = bound - jnp.sum(row * wish, -1)
    moved = wish + (lacking / jnp.sum(jnp.square(row), -1))[..., None] * row
    return jnp.where(lacking[..., None] > 0, moved, wish)


def project(wish: Array, rows: Array, bounds: Array, *, low: float = -1.0, high: float = 1.0) -> Projected:
    """The action in the box nearest to `wish` `[..., A]` with `rows[i] . u >= bounds[i]` for all of m rows.

    An action that keeps everything is returned as it is, bit by bit.

    Args:
        rows: `[..., m, A]`, of any length; a row of zeros is a condition that no action moves, and is left
            out, but its violation is told.
        bounds: `[..., m]`.
        low: of every entry of an action, as `high`.

    Raises:
        UserError: where so many sets of conditions would have to be tried that it would take long.
    """
    dim, count = wish.shape[-1], rows.shape[-2]
    _check(count + 2 * dim, dim)
    length = jnp.linalg.norm(rows, axis=-1)
    moves = length > 1e-9
    divisor = jnp.where(moves, length, 1.0)
    units, limits = rows / divisor[..., None], jnp.where(moves, bounds / divisor, _INERT)
    box = jnp.concatenate([jnp.eye(dim), -jnp.eye(dim)])
    lead = wish.shape[:-1]
    every = jnp.concatenate([units, jnp.broadcast_to(box, (*lead, *box.shape))], -2)
    ends = jnp.broadcast_to(jnp.repeat(jnp.array([low, -high]), dim), (*lead, 2 * dim))
    limits = jnp.concatenate([limits, ends], -1)
    kept = jnp.all(_products(every, wish) >= limits, -1)
    action, broken = _nearest(wish, every, limits)

    def relaxed() -> Array:
        slack = _least(every, limits, count)[..., None]
        return _nearest(wish, every, limits - jnp.where(_first(count, limits), slack, 0.0))[0]

    action = jax.lax.cond(jnp.any(broken > 2 * TOLERANCE), relaxed, lambda: action)
    action = jnp.where(kept[..., None], wish, jnp.clip(action, low, high))
    lacking = jnp.max(bounds / divisor - _products(units, action), -1, initial=0.0)
    return Projected(action, jnp.where(lacking > 10 * TOLERANCE, lacking, 0.0))


def _check(count: int, dim: int) -> None:
    tried = sum(comb(count, size) for size in range(dim + 2))
    if tried > MOST:
        raise UserError(
            f"{count - 2 * dim} conditions on actions of {dim} entries: {tried:,} sets of them would have to "
            f"be tried, and {MOST:,} are the most; give fewer conditions, those of what is near"
        )


def _first(count: int, like: Array) -> Array:
    """Of the shape of `like` `[..., n]`: whether an entry is one of the first `count`."""
    return jnp.broadcast_to(jnp.arange(like.shape[-1]) < count, like.shape)


@lru_cache
def _sets(count: int, size: int) -> np.ndarray:
    return np.array(list(combinations(range(count), size)), np.int32).reshape(-1, size)


def _products(rows: Array, point: Array) -> Array:
    """`[..., n]` of rows `[..., n, A]` and points `[..., A]`; a sum, for products of matrices may round."""
    return jnp.sum(rows * point[..., None, :], -1)


def _nearest(wish: Array, rows: Array, bounds: Array) -> tuple[Array, Array]:
    """The nearest point to `wish` that keeps the conditions as far as any candidate does, and how far."""
    dim, lacking, candidates = wish.shape[-1], bounds - _products(rows, wish), [wish[..., None, :]]
    for size in range(1, dim + 1):
        sets = _sets(rows.shape[-2], size)
        active, gap = rows[..., sets, :], lacking[..., sets]  # [..., C, size, A], [..., C, size]
        if size == dim:
            move = _solved(active, gap)
        else:
            gram = jnp.sum(active[..., :, None, :] * active[..., None, :, :], -1)
            move = jnp.sum(_solved(gram, gap)[..., None] * active, -2)
        candidates.append(wish[..., None, :] + move)
    points = jnp.concatenate(candidates, -2)  # [..., C, A]
    broken = jnp.max(bounds[..., None, :] - _products(rows[..., None, :, :], points), -1)
    least = jnp.maximum(jnp.min(broken, -1, keepdims=True), 0.0)
    distance = jnp.sum(jnp.square(points - wish[..., None, :]), -1)
    close = TOLERANCE * (1 + jnp.max(bounds, -1, keepdims=True, initial=0.0))
    at = jnp.argmin(jnp.where(broken <= least + close, distance, jnp.inf), -1)[..., None]
    return (
        jnp.take_along_axis(points, at[..., None], -2)[..., 0, :],
        jnp.take_along_axis(broken, at, -1)[..., 0],
    )


def _least(rows: Array, bounds: Array, count: int) -> Array:
    """`[...]`, the smallest `s >= 0` with `rows . u + s >= bounds` in the first `count` rows, in the box."""
    dim, total = rows.shape[-1], rows.shape[-2]
    eased = _first(count, bounds).astype(rows.dtype)[..., None]
    lifted, sets = jnp.concatenate([rows, eased], -1), _sets(total, dim + 1)
    sets = sets[sets[:, 0] < count]  # the others say nothing of `s`
    vertices = _solved(lifted[..., sets, :], bounds[..., sets])  # [..., C, A + 1]
    broken = jnp.max(bounds[..., None, :] - _products(lifted[..., None, :, :], vertices), -1)
    slack = vertices[..., -1]
    slack = jnp.where(broken <= TOLERANCE * (1 + jnp.abs(slack)), slack, jnp.inf)
    least = jnp.maximum(jnp.min(slack, -1), 0.0)
    return jnp.where(jnp.isfinite(least), least, 0.0)


def _solved(matrix: Array, right: Array) -> Array:
    """`[..., k]`, the solution of `matrix [..., k, k]` by elimination with the largest pivots; 0 without one.

    Unrolled: LAPACK is called once a matrix, which for k = 2 or 3 takes longer than all else here.
    """
    size, full = right.shape[-1], jnp.concatenate([matrix, right[..., None]], -1)
    used, regular, pivots = jnp.zeros(right.shape, bool), jnp.ones(right.shape[:-1], bool), []
    for column in range(size):
        worth = jnp.where(used, -1.0, jnp.abs(full[..., column]))
        pivot = jax.nn.one_hot(jnp.argmax(worth, -1), size, dtype=bool)  # [..., k], the row
        row = jnp.sum(jnp.where(pivot[..., None], full, 0.0), -2)
        regular = regular & (jnp.abs(row[..., column]) > _SINGULAR)
        row = row / jnp.where(regular, row[..., column], 1.0)[..., None]
        rest = full - full[..., column : column + 1] * row[..., None, :]
        full = jnp.where(pivot[..., None], row[..., None, :], rest)
        used, pivots = used | pivot, [*pivots, pivot]
    found = jnp.stack([jnp.sum(jnp.where(p, full[..., -1], 0.0), -1) for p in pivots], -1)
    return jnp.where(regular[..., None], found, 0.0)
