"""Anchors: the typical vectors of a dataset, around which truncated chains begin (arXiv 2411.15139)."""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.types import named_keys


def gaps(x: Array, anchors: Array) -> Array:
    """`[N, K]`, squared distances of vectors `x` `[N, D]` from `anchors` `[K, D]`."""
    apart = -2 * x @ anchors.T + jnp.sum(jnp.square(anchors), axis=1)[None]
    return jnp.maximum(apart + jnp.sum(jnp.square(x), axis=1)[:, None], 0.0)


def nearest(x: Array, anchors: Array) -> Array:
    """`[N]` int32, which of `anchors` `[K, D]` lies nearest to each of `x` `[N, D]`."""
    return jnp.argmin(gaps(x, anchors), axis=1).astype(jnp.int32)


def spread_out(key: Array, x: Array, count: int) -> Array:
    """`[count, D]`, rows of `x` `[N, D]` far from each other, as k-means++ draws them (Arthur 2007).

    Each next one with a chance in proportion to its squared distance from those before it. The key is
    consumed.
    """
    keys = named_keys(key, "first", "others")
    first = x[jax.random.randint(keys["first"], (), 0, x.shape[0])]

    def another(near: Array, key: Array) -> tuple[Array, Array]:
        row = x[jax.random.categorical(key, jnp.log(near))]
        return jnp.minimum(near, gaps(x, row[None])[:, 0]), row

    others = jax.random.split(keys["others"], count - 1)
    rest = jax.lax.scan(another, gaps(x, first[None])[:, 0], others)[1]
    return jnp.concatenate([first[None], rest])


def lloyd(x: Array, anchors: Array, iterations: int) -> Array:
    """`[K, D]`, after `iterations` of k-means on `x` `[N, D]` from `anchors` `[K, D]` (Lloyd 1982).

    An anchor that is nearest to nothing stays where it is. The number of iterations is fixed, so that many
    seeds are one `vmap`.
    """

    def step(_: int, anchors: Array) -> Array:
        whose = jax.nn.one_hot(nearest(x, anchors), anchors.shape[0], dtype=x.dtype)  # [N, K]
        members = jnp.sum(whose, axis=0)[:, None]
        return jnp.where(members > 0, whose.T @ x / jnp.maximum(members, 1.0), anchors)

    return jax.lax.fori_loop(0, iterations, step, anchors)


def fit_anchors(key: Array, x: Array, count: int, iterations: int = 30) -> Array:
    """`[count, D]`, k-means of the rows of `x` `[N, D]`; the key is consumed."""
    return lloyd(x, spread_out(key, x, count), iterations)


def _some_rows(key: Array, rows: SegmentRows, length: int, count: int) -> Array:
    """`[count, length]`, indices of rows that follow one another, an episode's last repeated."""
    starts, last = jnp.asarray(rows.starts), jnp.asarray(rows.last)
    which = jax.random.randint(key, (count,), 0, starts.shape[0])
    at = starts[which][:, None] + jnp.arange(length, dtype=starts.dtype)[None]
    return jnp.minimum(at, last[which][:, None])


def some_chunks(key: Array, rows: SegmentRows, length: int, count: int) -> Array:
    """`[count, length * A]`, chunks of actions from drawn rows on, the last repeated; consumes the key."""
    return jnp.asarray(rows.action)[_some_rows(key, rows, length, count)].reshape(count, -1)


def some_changes(key: Array, rows: SegmentRows, length: int, count: int) -> Array:
    """`[count, O]`, how observations change over `length` rows, from drawn ones on; consumes the key."""
    found = jnp.asarray(rows.observation)[_some_rows(key, rows, length, count)]
    return found[:, -1] - found[:, 0]


def focal_loss(logits: Array, which: Array, *, gamma: float = 2.0, alpha: float = 0.25) -> Array:
    """`[B]`: each of K logits `[B, K]` says whether its anchor is `which` `[B]` (arXiv 1708.02002, eq. 5).

    `-alpha (1 - p)^gamma ln p` of the right one and `-(1 - alpha) p^gamma ln(1 - p)` of every other, summed;
    `p` is a sigmoid. What is well known already counts little; `gamma = 0` is cross-entropy.
    """
    right = jax.nn.one_hot(which, logits.shape[-1], dtype=logits.dtype)
    sign = 2 * right - 1  # the logit of what is so is sign * logits
    missed, weight = jax.nn.sigmoid(-sign * logits), alpha * right + (1 - alpha) * (1 - right)
    return jnp.sum(-weight * missed**gamma * jax.nn.log_sigmoid(sign * logits), axis=-1)
