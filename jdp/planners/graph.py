"""A graph of dataset states, shortest paths in it, and their waypoints at the rows of a plan; all in JAX.

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


class Path(NamedTuple):
    """A way through the landmarks of a graph, of L hops; after its end the last is repeated."""

    node: Array  # [L] int32, the landmarks that are passed
    point: Array  # [L, P], where: the landmark, or the goal itself at the end
    time: Array  # [L], steps until each is passed


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


def nearest_reachable(graph: Graph, source: Array, goal: Array) -> tuple[Array, Array]:
    """The landmark nearest to `goal` `[P]` of those with a way from `source`; whether none is nearer."""
    gap = squared(graph.position, goal[None])
    target = jnp.argmin(jnp.where(jnp.isfinite(graph.cost[source]), gap, jnp.inf)).astype(jnp.int32)
    return target, target == jnp.argmin(gap)


def walk(graph: Graph, source: Array, target: Array, here: Array, end: Array, length: int) -> Path:
    """The shortest path from landmark `source` to `target`, walked from `here` to `end` (`[P]`, near them).

    Of the first and of the last edge only the share of its length is counted that is walked.
    """

    def step(node: Array, _: None) -> tuple[Array, Array]:
        node = graph.hop[node, target]
        return node, node

    node = jax.lax.scan(step, source, None, length=length)[1]
    point = jnp.where((node == target)[:, None], end[None], graph.position[node])
    before = jnp.concatenate([source[None], node[:-1]])
    walked = jnp.sqrt(squared(point, jnp.concatenate([here[None], point[:-1]])))
    whole = jnp.sqrt(squared(graph.position[node], graph.position[before]))
    share = walked / jnp.where(node == before, 1.0, jnp.maximum(whole, 1e-6))
    steps = jnp.where(node == before, graph.pace * walked, graph.edge[before, node] * share)
    return Path(node, point, jnp.cumsum(steps))


def waypoints(path: Path, rows: int, stride: int, spacing: int) -> tuple[Array, Array]:
    """`(points [R, P], given [R] bool)`: the waypoints of a path at the rows of a plan, every `stride` steps.

    Waypoints stand where the path passes a landmark, `spacing` steps or more apart, and at its end. Of a
    path that is longer than the plan, the last one stands where the plan's time is over.
    """
    row = jnp.maximum(jnp.round(path.time / stride), 1.0).astype(jnp.int32)
    fits = (row < rows).at[0].set(True)
    row = jnp.minimum(row, rows - 1)

    def keep(last: Array, time: Array) -> tuple[Array, Array]:
        kept = time - last >= spacing
        return jnp.where(kept, time, last), kept

    apart = jax.lax.scan(keep, jnp.zeros(()), path.time)[1]
    final = fits & ~jnp.append(fits[1:], False)
    index = jnp.arange(row.shape[0])
    hit = (row[None] == jnp.arange(rows)[:, None]) & (fits & (apart | final))[None]
    latest = jnp.max(jnp.where(hit, index[None], -1), axis=1)
    return path.point[jnp.maximum(latest, 0)], latest >= 0


def route(
    graph: Graph, here: Array, goal: Array, *, horizon: int, rows: int, stride: int, spacing: int
) -> tuple[Path, Array, Array, Array]:
    """`(path, points [R, P], given [R], value [])` of one environment at `here` `[P]`, for `goal` `[P]`.

    Without a goal (`[0]`) the path leads to the landmark of highest mean value that is at most `horizon`
    steps away, and `value` is its; with one, to the nearest landmark that can be reached and, if that is
    the nearest of all, to the goal itself; `value` is then minus the steps.
    """
    length = min(graph.position.shape[0], horizon)
    source = nearest(here[None], graph.position)[0][0]
    if goal.shape[0]:
        target, arrives = nearest_reachable(graph, source, goal)
        end = jnp.where(arrives, goal, graph.position[target])
        path = walk(graph, source, target, here, end, length)
        value = -graph.cost[source, target]
    else:
        within = graph.cost[source] <= horizon
        target = jnp.argmax(jnp.where(within, graph.value, -jnp.inf)).astype(jnp.int32)
        path = walk(graph, source, target, here, graph.position[target], length)
        value = graph.value[target]
    return path, *waypoints(path, rows, stride, spacing), value
