"""Ways through a graph of dataset states, and their waypoints at the rows of a plan; all in JAX."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.planners.graph import Graph, nearest, squared

MOST_GOALS = 12  # of a tour: its tables have 2^M M entries


class Path(NamedTuple):
    """A way through the landmarks of a graph, of L hops; after its end the last is repeated."""

    node: Array  # [L] int32, the landmarks that are passed
    point: Array  # [L, P], where: the landmark, or the goal itself at the end
    time: Array  # [L], steps until each is passed


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


class Routes(NamedTuple):
    """Where plans of B environments shall be."""

    path: Path  # leaves [B, ...]
    target: Array  # [B, T, O], the waypoints at their rows, the present in row 0
    guided: Array  # [B, T, O] bool, which entries are waypoints
    value: Array  # [B]


def routes(graph: Graph, here: Array, aim: Array, at: Array, *, rows: int, **sizes: int) -> Routes:
    """`route` from `here` `[B, O]` to `aim` `[B, P]` or `[B, 0]`; `at` `[P]` are a position's entries."""

    def one(here: Array, aim: Array) -> tuple[Path, Array, Array, Array]:
        return route(graph, here, aim, rows=rows, **sizes)

    path, points, given, value = jax.vmap(one)(here[:, at], aim)
    target = jnp.zeros((here.shape[0], rows, here.shape[1])).at[:, :, at].set(points)
    target = target.at[:, 0].set(here)
    return Routes(path, target, jnp.zeros(target.shape, bool).at[:, :, at].set(given[:, :, None]), value)


class Tour(NamedTuple):
    """The order in which M goals are visited."""

    order: Array  # [M] int32, which goal comes first, second, ...; says nothing where the cost is inf
    cost: Array  # [], steps from the beginning to the last goal; inf where not all can be reached


def tour(graph: Graph, source: Array, goals: Array) -> Tour:
    """The cheapest order from landmark `source` `[]` through all landmarks `goals` `[M]`, ending at any.

    Exact, by dynamic programming over the sets of goals already visited (Held and Karp 1962): `2^M M^2`
    additions. `walk` from goal to goal is the way.

    Raises:
        UserError: for more than `MOST_GOALS` goals.
    """
    count = goals.shape[0]
    if not 1 <= count <= MOST_GOALS:
        raise UserError(f"a tour of {count} goals: give 1 to {MOST_GOALS}, more orders are not searched")
    first, between = graph.cost[source, goals], graph.cost[goals[:, None], goals[None]]
    bit = 1 << jnp.arange(count)

    def visit(visited: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        least, came = both
        before = visited ^ bit  # the set without each goal, where it is the last
        total = least[before] + between.T
        cost = jnp.where(before == 0, first, jnp.min(total, axis=1))
        cost = jnp.where((visited & bit) > 0, cost, jnp.inf)
        return least.at[visited].set(cost), came.at[visited].set(jnp.argmin(total, axis=1).astype(jnp.int32))

    none = jnp.full((1 << count, count), jnp.inf), jnp.zeros((1 << count, count), jnp.int32)
    least, came = jax.lax.fori_loop(1, 1 << count, visit, none)

    def back(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        visited, last = state
        return (visited ^ bit[last], came[visited, last]), last

    everything = jnp.asarray((1 << count) - 1, bit.dtype)
    end = jnp.argmin(least[-1]).astype(jnp.int32)
    order = jax.lax.scan(back, (everything, end), None, length=count)[1][::-1]
    return Tour(order, least[-1, end])
