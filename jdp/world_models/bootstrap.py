"""Bootstraps: every member of an ensemble draws from rows of its own."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import Episodes, transitions
from jdp.types import AnyArray, Transition, pack, unpack


class Bootstrapped(NamedTuple):
    """Packed steps, and which of them each of M members sees."""

    rows: AnyArray  # [N, 2 O + A + 2], packed transitions
    table: AnyArray  # [M, K] int32, see `bootstrap`


def bootstrap(key: Array, count: int, members: int) -> Array:
    """`[M, N]` int32: for every member, `count` of the rows `0 .. count - 1`, with replacement."""
    return jax.random.randint(key, (members, count), 0, count, jnp.int32)


@dataclass(frozen=True)
class BootstrapDraw:
    """Single steps, for every member its own, uniform and with replacement (a `jdp.types.Draw`).

    Batches have leading axes `[M, B]`: split them over devices along axis 1.
    """

    observation_dim: int
    action_dim: int
    members: int

    def prepare(self, episodes: Episodes) -> Bootstrapped:
        """The steps whose successor is known; every member sees all of them until `bootstrap` deals them."""
        found = transitions(episodes, known_successors=True)
        rows = np.asarray(pack(jax.tree.map(jnp.asarray, found)))
        return Bootstrapped(rows, np.tile(np.arange(len(rows), dtype=np.int32), (self.members, 1)))

    def view(self, rows: Bootstrapped) -> Transition:
        """All steps, fields `[N, ...]`."""
        return unpack(rows.rows, self.observation_dim, self.action_dim)

    def tables(self, rows: Bootstrapped) -> AnyArray:
        """Which rows the members see."""
        return rows.table

    def locate(self, key: Array, tables: AnyArray, batch_size: int) -> Array:
        """`[M, B]`."""
        members, count = tables.shape
        places = jax.random.randint(key, (members, batch_size), 0, count)
        return jnp.take_along_axis(jnp.asarray(tables), places, axis=1)

    def take(self, rows: Bootstrapped, located: AnyArray) -> Transition:
        """Fields `[M, B, ...]`."""
        return unpack(rows.rows[located], self.observation_dim, self.action_dim)
