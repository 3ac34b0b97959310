"""A ring buffer of packed transitions: fixed shapes, and only filled rows are ever drawn."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError


class Ring(NamedTuple):
    """First in, first out. Rows at `size` and beyond were never written."""

    rows: Array  # [capacity, P] packed transitions
    head: Array  # [] int32, where the next row goes
    size: Array  # [] int32, how many rows are filled


def ring(capacity: int, width: int) -> Ring:
    """An empty ring of `capacity` rows of `width` = P numbers."""
    if capacity < 1:
        raise UserError(f"a ring buffer of capacity {capacity} holds nothing: it must be at least 1")
    zero = jnp.zeros((), jnp.int32)
    return Ring(jnp.zeros((capacity, width)), zero, jnp.copy(zero))


def push(ring: Ring, rows: Array, keep: Array) -> Ring:
    """`ring` with those of `rows` `[n, P]` where `keep` `[n]` (bool) is true, in their order.

    Other rows take no place. Once the ring is full, the oldest rows make room.

    Raises:
        UserError: if `n` exceeds the capacity, so that rows of one push could overwrite each other.
    """
    capacity, n = ring.rows.shape[0], rows.shape[0]
    if n > capacity:
        raise UserError(
            f"{n} rows do not fit a ring buffer of {capacity}: shorten the horizon or the batch of rollouts, "
            "or enlarge the buffer"
        )
    kept = keep.astype(jnp.int32)
    place = (ring.head + jnp.cumsum(kept) - kept) % capacity
    place = jnp.where(keep, place, capacity)  # beyond the end: dropped
    count = jnp.sum(kept)
    return Ring(
        rows=ring.rows.at[place].set(rows, mode="drop"),
        head=(ring.head + count) % capacity,
        size=jnp.minimum(ring.size + count, capacity),
    )
