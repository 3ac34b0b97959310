"""A graph of dataset states and the shortest paths in it, all in JAX; `jdp.planners.routes` walks them.

Nothing here runs on the host, so a graph can be built inside the compiled `init` of a planner.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data.segments import SegmentRows, absorbing

CANDIDATES = 1 << 16  # rows among which landmarks are sought, evenly spaced in the dataset


class Graph(NamedTuple):
    """Landmarks, the steps between them, and the way from each to each."""

    observation: Array  # [V, O], the landmarks, in units of the task
    position: Array  # [V, P], where they are: the coordinates in which distances are measured
    value: Array  # [V], mean value of the rows nearest to each; -inf where all of these are absorbing
    edge: Array  # [V, V], steps from u to v where the data go there directly, else inf; 0 from u to u
    cost: Array  # [V, V], steps along the shortest path; inf where there is none
    hop: Array  # [V, V] int32, the landmark after u on the way to v; u itself where there is no way
    pace: Array  # [], steps per unit of distance, a mean over the edges


def squared(a: Array, b: Array) -> Array:
    """`[..., P], [..., P] -> [...]`, squared distances."""
    return jnp.sum(jnp.square(a - b), axis=-1)


def farthest_points(key: Array, position: Array, count: int) -> Array:
    """`[count]` int32, rows of `position` `[M, P]`: the first is drawn, each next the farthest from all.

    Every row then lies nearer to one of them than any two of them lie to each other.
    """
    first = jax.random.randint(key, (), 0, position.shape[0])

    def body(i: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, gap = both
        gap = jnp.minimum(gap, squared(position, position[chosen[i - 1]][None]))
        return chosen.at[i].set(jnp.argmax(gap).astype(jnp.int32)), gap

    chosen = jnp.zeros(count, jnp.int32).at[0].set(first)
    return jax.lax.fori_loop(1, count, body, (chosen, jnp.full(position.shape[0], jnp.inf)))[0]


def nearest(position: Array, landmark: Array) -> tuple[Array, Array]:
    """`([M], [M])`: the nearest of `landmark` `[V, P]` to each of `position` `[M, P]`, squared distances."""

    def one(p: Array) -> tuple[Array, Array]:
        gap = squared(landmark, p[None])
        at = jnp.argmin(gap).astype(jnp.int32)
        return at, gap[at]

    return jax.lax.map(one, position, batch_size=2048)


def episode_ends(rows: SegmentRows) -> Array:
    """`[M]` int32, the last row of the episode of each row; before the row itself where no start tells."""
    ends = jnp.full(rows.reward.shape[0], -1, jnp.int32).at[rows.starts].max(rows.last.astype(jnp.int32))
    return jax.lax.cummax(ends)


def passages(cell: Array, gap: Array, ends: Array, reach: int) -> tuple[Array, Array, Array, Array]:
    """`(from, to, steps, valid)` `[M]` each: how the episodes go from cell to cell.

    `cell` `[M]` says which landmark each row is nearest to, and `gap` how near. Consecutive rows of one
    cell are a visit, which passes the landmark where it is nearest to it; from the passing of one to
    that of the next are `steps`. Those of more than `reach` steps are not valid.
    """
    count = cell.shape[0]
    row = jnp.arange(count, dtype=jnp.int32)
    new = (cell[1:] != cell[:-1]) | (row[1:] > ends[:-1])
    visit = jnp.cumsum(jnp.concatenate([jnp.ones(1, jnp.int32), new.astype(jnp.int32)])) - 1
    least = jax.ops.segment_min(gap, visit, count)
    passed = jax.ops.segment_min(jnp.where(gap <= least[visit], row, count), visit, count)
    exists = passed < count
    passed = jnp.minimum(passed, count - 1)
    here, there = passed, jnp.roll(passed, -1)
    steps = there - here
    valid = exists & jnp.roll(exists, -1) & (steps > 0) & (steps <= reach) & (there <= ends[here])
    return cell[here], cell[there], steps, valid


def shortest_paths(edge: Array) -> tuple[Array, Array]:
    """`(cost, hop)` `[V, V]` of Floyd and Warshall, see `Graph`."""
    count = edge.shape[0]
    here, there = jnp.indices((count, count), jnp.int32)

    def through(k: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        cost, hop = both
        other = cost[:, k][:, None] + cost[k][None]
        first = jnp.broadcast_to(hop[:, k][:, None], hop.shape)
        return jnp.minimum(cost, other), jnp.where(other < cost, first, hop)

    return jax.lax.fori_loop(0, count, through, (edge, jnp.where(jnp.isfinite(edge), there, here)))


def build_graph(key: Array, rows: SegmentRows, position: Array, count: int, reach: int) -> Graph:
    """The graph of a dataset, with `count` landmarks, farthest points of `position` `[M, P]`.

    An edge stands where an episode passes from one landmark to a next one within `reach` steps; it costs the
    mean of those steps, as a plan that resembles the data takes. So its paths go where data went, over pieces
    of different episodes. Landmarks must lie closer than walls are thick, or a cell holds both sides.
    """
    spaced = jnp.arange(0, position.shape[0], max(1, position.shape[0] // CANDIDATES))
    chosen = spaced[farthest_points(key, position[spaced], count)]
    landmark = position[chosen]
    cell, gap = nearest(position, landmark)
    here, there, steps, valid = passages(cell, gap, episode_ends(rows), reach)
    none = jnp.zeros((count, count))
    total = none.at[here, there].add(jnp.where(valid, steps.astype(none.dtype), 0.0))
    times = none.at[here, there].add(valid.astype(none.dtype))
    edge = jnp.where(times > 0, total / jnp.maximum(times, 1.0), jnp.inf)
    distance = jnp.sqrt(squared(landmark[:, None], landmark[None]))
    pace = jnp.sum(total) / jnp.maximum(jnp.sum(times * distance), 1e-6)
    edge = jnp.where(jnp.eye(count, dtype=bool), 0.0, edge)
    real = (~absorbing(rows)).astype(none.dtype)
    number = jax.ops.segment_sum(real, cell, count)
    mean = jax.ops.segment_sum(jnp.asarray(rows.value) * real, cell, count) / jnp.maximum(number, 1.0)
    mean = jnp.where(number > 0, mean, -jnp.inf)
    return Graph(jnp.asarray(rows.observation)[chosen], landmark, mean, edge, *shortest_paths(edge), pace)
