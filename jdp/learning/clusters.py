"""Clusters of a dataset: parts that experts learn from, apart from each other (arXiv 2501.05450).

Whoever has the data finds the same clusters by the same seed. So experts that are trained in processes, or on
machines, that never speak to one another need not even agree on them.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import Episodes, SegmentRows
from jdp.data.draws import OtherRows, WindowDraw, WindowRows
from jdp.errors import UserError
from jdp.learning.anchors import fit_anchors, gaps, nearest
from jdp.types import AnyArray, PyTree, named_keys

LOOKED_AT = 4096  # windows that centres are found in


def soft_clusters(x: Array, centres: Array, *, temperature: float, decay: float) -> tuple[Array, Array]:
    """`([B, K], [K, D])`: how much each of `x` `[B, D]` is of each cluster, and the centres, moved.

    The chances are `softmax(-|x - c|^2 / (2 temperature^2))`, and every centre moves by `1 - decay` towards
    the mean of what is its own, by these chances; one that nothing is near stays. It is the pattern of the
    dynamic routing of AdaptDHM (arXiv 2211.12105), soft assignments with centres that follow the batches;
    nothing of its application, recommendation, is here. With a `decay` of 0 and a temperature near 0 it is a
    step of k-means, with that of a mixture's own std one of expectation maximisation.
    """
    chances = jax.nn.softmax(-gaps(x, centres) / (2 * temperature**2), axis=-1)
    mass = jnp.sum(chances, axis=0)[:, None]
    means = chances.T @ x / jnp.maximum(mass, 1e-6)
    return chances, jnp.where(mass > 1e-6, decay * centres + (1 - decay) * means, centres)


@partial(jax.jit, static_argnums=3)
def window_features(rows: Array, starts: Array, last: Array, length: int) -> Array:
    """`[W, 2 D]`: the mean of the rows `[M, D]` of each window, and what its last has more than its first.

    A window is `length` rows from one of `starts` `[W]`, with its `last` `[W]` row repeated.
    """
    total = jnp.zeros((starts.shape[0], rows.shape[1]), rows.dtype)

    def add(step: Array, total: Array) -> Array:  # a gather a step, not all windows at once
        return total + rows[jnp.minimum(starts + step, last)]

    mean = jax.lax.fori_loop(0, length, add, total) / length
    return jnp.concatenate([mean, rows[jnp.minimum(starts + length - 1, last)] - rows[starts]], axis=-1)


@partial(jax.jit, static_argnums=2)
def _assigned(key: Array, features: Array, count: int) -> Array:
    keys = named_keys(key, "looked_at", "centres")
    total = features.shape[0]
    some = jax.random.choice(keys["looked_at"], total, (min(LOOKED_AT, total),), replace=False)
    units = features / jnp.maximum(jnp.std(features, axis=0, keepdims=True), 1e-6)
    return nearest(units, fit_anchors(keys["centres"], units[some], count))


def assign(seed: int, features: Array, count: int) -> np.ndarray:
    """`[W]` int32, which of `count` clusters each of `features` `[W, F]` is of: k-means, the same everywhere.

    Raises:
        UserError: if a cluster has nothing.
    """
    found = np.asarray(_assigned(jax.random.key(seed), features, count))
    if len(np.unique(found)) < count:
        raise UserError(f"{count} clusters of {len(found)} windows leave some empty: give fewer")
    return found


class Where(NamedTuple):
    """Rows of a dataset as the features of windows see them."""

    rows: AnyArray  # [M, D]
    starts: AnyArray  # [W]
    last: AnyArray  # [W]


def _where(rows: PyTree) -> Where:
    if isinstance(rows, WindowRows):
        return Where(*rows)
    if isinstance(rows, SegmentRows):
        return Where(np.concatenate([rows.observation, rows.action], axis=-1), rows.starts, rows.last)
    raise UserError(f"clusters are of windows or segments of a dataset, not of {type(rows).__name__}")


@dataclass(frozen=True)
class PartDraw(OtherRows):
    """What `draw` draws, from one of `count` clusters of the dataset alone: an expert's draw.

    Put it in the place of the draw of any learner of windows or segments, and what it trains is an expert:
    `learner._replace(draws=PartDraw(learner.draws, length, part, count))`. Statistics are still those of all
    data, so that experts have their coordinates in common.

    Raises:
        UserError: unless 0 <= part < count.
    """

    length: int  # of the windows that are clustered
    part: int
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.count:
            raise UserError(f"part {self.part} of {self.count}: parts are 0 to {self.count - 1}")

    def prepare(self, episodes: Episodes) -> PyTree:
        """The rows of all data, and where windows of this part begin."""
        rows = self.draw.prepare(episodes)
        return part_of(rows, clusters_of(rows, self.length, self.count, self.seed) == self.part)


def clusters_of(rows: PyTree, length: int, count: int, seed: int = 0) -> np.ndarray:
    """`[W]` int32, the clusters of the windows of `length` that begin in the rows of a draw."""
    found = _where(rows)
    return assign(seed, window_features(found.rows, found.starts, found.last, length), count)


def part_of(rows: PyTree, chosen: np.ndarray) -> PyTree:
    """The rows of a draw, with only the `chosen` `[W]` bool of the places where windows may begin."""
    _where(rows)
    names = [name for name in ("starts", "last", "first") if hasattr(rows, name)]
    return rows._replace(**{name: np.asarray(getattr(rows, name))[chosen] for name in names})


class Labelled(NamedTuple):
    """Windows with the cluster of each."""

    windows: WindowRows
    cluster: AnyArray  # [W] int32


@dataclass(frozen=True)
class LabelledDraw:
    """Windows of all clusters beside their numbers: what a router learns from."""

    draw: WindowDraw
    count: int
    seed: int = 0

    def prepare(self, episodes: Episodes) -> Labelled:
        """All windows, clustered as `PartDraw` clusters them."""
        rows = self.draw.prepare(episodes)
        return Labelled(rows, clusters_of(rows, self.draw.length, self.count, self.seed))

    def view(self, rows: Labelled) -> tuple[Array, Array]:
        """The first window `[1, length, D]` and its cluster."""
        return self.draw.view(rows.windows), jnp.asarray(rows.cluster[:1])

    def tables(self, rows: Labelled) -> tuple[PyTree, AnyArray]:
        """Those of the windows, and the clusters."""
        return self.draw.tables(rows.windows), rows.cluster

    def locate(self, key: Array, tables: tuple[PyTree, Array], batch_size: int) -> tuple[Array, Array]:
        """`[B, length]` and `[B]`."""
        (starts, last), cluster = tables
        window = jax.random.randint(key, (batch_size,), 0, starts.shape[0])
        return self.draw.steps(starts[window], last[window]), cluster[window]

    def take(self, rows: Labelled, located: tuple[AnyArray, AnyArray]) -> tuple[AnyArray, AnyArray]:
        """`[B, length, D]` and `[B]`."""
        return self.draw.take(rows.windows, located[0]), located[1]
