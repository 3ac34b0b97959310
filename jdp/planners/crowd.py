"""Paths of several agents through one graph that never meet, all in JAX.

Agents move one edge at a tick or wait, and stay at their goals. They are planned one after the other, each
around those before it in space and time (cooperative A* of Silver 2005, here by breadth first, which is exact
for one agent): not complete, so several orders are tried.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.errors import UserError

ALL_ORDERS = 4  # of up to so many agents; of more those that begin with each in turn, forwards and backwards


class Crowd(NamedTuple):
    """Where N agents are at every tick."""

    node: Array  # [N, H + 1] int32; an agent that found no way stands at its start, whoever comes there
    arrival: Array  # [N], the tick from which each is at its goal; inf where it found no way
    found: Array  # [] bool, whether all did


def orders(agents: int) -> np.ndarray:
    """`[P, N]`, the orders of priority that are tried."""
    if agents <= ALL_ORDERS:
        return np.array(list(itertools.permutations(range(agents))))
    turned = [np.roll(np.arange(agents), -i) for i in range(agents)]
    return np.array([*turned, *(way[::-1] for way in turned)])


def _one(edge: Array, source: Array, goal: Array, node: Array, placed: Array) -> tuple[Array, Array]:
    """`(path [H + 1], arrival [])` of one agent around those `placed` `[N]` at `node` `[N, H + 1]`."""
    size, ticks = edge.shape[0], node.shape[1] - 1
    taken = jnp.zeros((ticks + 1, size), bool)
    taken = taken.at[jnp.arange(ticks + 1)[None], node].max(jnp.broadcast_to(placed[:, None], node.shape))
    moves = edge | jnp.eye(size, dtype=bool)

    def step(here: Array, tick: Array) -> tuple[Array, tuple[Array, Array]]:
        swap = jnp.zeros((size, size), bool).at[node[:, tick + 1], node[:, tick]].max(placed)
        ways = here[:, None] & moves & ~swap & ~taken[tick + 1][None]
        there = jnp.any(ways, axis=0)
        return there, (there, jnp.argmax(ways, axis=0).astype(jnp.int32))

    begin = (jnp.arange(size) == source) & ~taken[0]
    reached, came = jax.lax.scan(step, begin, jnp.arange(ticks))[1]
    reached = jnp.concatenate([begin[None], reached])
    free = jnp.flip(jax.lax.cummin(jnp.flip(~taken[:, goal]).astype(jnp.int32))) > 0  # from then on
    ends = reached[:, goal] & free
    arrival = jnp.argmax(ends)

    def back(at: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        tick, came = item
        return jnp.where(tick > arrival, goal, came[at]), at

    first, rest = jax.lax.scan(back, goal, (jnp.arange(1, ticks + 1), came), reverse=True)
    path = jnp.concatenate([first[None], rest])
    found = jnp.any(ends)
    return jnp.where(found, path, source), jnp.where(found, arrival.astype(jnp.float32), jnp.inf)


def _in_order(edge: Array, source: Array, goal: Array, order: Array, ticks: int) -> Crowd:
    count = source.shape[0]

    def place(state: tuple[Array, Array, Array], agent: Array) -> tuple[tuple[Array, Array, Array], None]:
        node, placed, arrival = state
        path, when = _one(edge, source[agent], goal[agent], node, placed)
        return (node.at[agent].set(path), placed.at[agent].set(True), arrival.at[agent].set(when)), None

    none = jnp.zeros((count, ticks + 1), jnp.int32), jnp.zeros(count, bool), jnp.full(count, jnp.inf)
    (node, _, arrival), _ = jax.lax.scan(place, none, order)
    return Crowd(node, arrival, jnp.all(jnp.isfinite(arrival)))


def paths_apart(edge: Array, source: Array, goal: Array, ticks: int) -> Crowd:
    """Paths of N agents from `source` to `goal` `[N]`, nodes of a graph of moves `edge` `[V, V]` bool.

    No two are at one node at one tick, and none go along one edge against each other. Of the orders of
    priority that were tried it is the one in which most agents arrive, and of those the one of the least sum
    of arrivals. Of a `jdp.planners.graph.Graph` the moves are `isfinite(graph.edge)`: its edges take about
    equal times, for its landmarks lie about equally far apart.

    Raises:
        UserError: unless there is an agent and a tick.
    """
    if not source.shape[0] or ticks < 1:
        raise UserError(f"{source.shape[0]} agents in {ticks} ticks: give one or more of both")
    source, goal = source.astype(jnp.int32), goal.astype(jnp.int32)
    tried = jnp.asarray(orders(source.shape[0]))
    crowds = jax.vmap(lambda order: _in_order(edge, source, goal, order, ticks))(tried)
    missing = ~jnp.isfinite(crowds.arrival)
    total = jnp.sum(jnp.where(missing, float(ticks * source.shape[0] + 1), crowds.arrival), axis=1)
    return jax.tree.map(lambda x: x[jnp.argmin(total)], crowds)
