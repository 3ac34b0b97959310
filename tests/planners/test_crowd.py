"""Several agents on one graph: no collisions, and sums of arrivals against the best of all joint paths."""

import heapq
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_rooms import CELLS, DOOR, neighbours

from jdp.errors import UserError
from jdp.planners.crowd import orders, paths_apart

FIND = jax.jit(paths_apart, static_argnums=3)


def best_sum(edge, source, goal):
    """The least sum of arrivals of joint paths, by Dijkstra over where all are and who has stopped."""
    count, nodes = len(source), range(len(edge))
    moves = [[v for v in nodes if v == u or edge[u, v]] for u in nodes]
    queue, seen = [(0, tuple(source), (False,) * count)], set()
    while queue:
        cost, here, done = heapq.heappop(queue)
        if all(done):
            return cost
        if (here, done) in seen:
            continue
        seen.add((here, done))
        for i in range(count):
            if not done[i] and here[i] == goal[i]:
                heapq.heappush(queue, (cost, here, (*done[:i], True, *done[i + 1 :])))
        for there in itertools.product(*([h] if d else moves[h] for h, d in zip(here, done, strict=True))):
            pairs = itertools.combinations(range(count), 2)
            if len(set(there)) == count and not any(
                there[i] == here[j] and there[j] == here[i] for i, j in pairs
            ):
                heapq.heappush(queue, (cost + count - sum(done), there, done))
    return None


def check(edge, source, goal, crowd, ticks):
    """That all begin, move, arrive and keep apart as they must."""
    node, arrival = np.asarray(crowd.node), np.asarray(crowd.arrival).astype(int)
    assert node.shape == (len(source), ticks + 1) and (node[:, 0] == source).all()
    for path, end, when in zip(node, goal, arrival, strict=True):
        assert all(u == v or edge[u, v] for u, v in itertools.pairwise(path))
        assert (path[when:] == end).all() and (when == 0 or path[when - 1] != end)
    for a, b in itertools.combinations(node, 2):
        assert (a != b).all() and not ((a[1:] == b[:-1]) & (a[:-1] == b[1:])).any()


def test_agents_keep_apart_at_little_more_than_the_best_sum():
    """Three agents on 60 random graphs of 7 nodes, of which some have no joint paths."""
    rng, spent, found = np.random.default_rng(0), [], 0
    for _ in range(60):
        edge = np.triu(rng.random((7, 7)) < 0.35, 1)
        edge |= edge.T
        source, goal = rng.permutation(7)[:3], rng.permutation(7)[:3]
        crowd, best = (
            FIND(jnp.asarray(edge), jnp.asarray(source), jnp.asarray(goal), 16),
            best_sum(edge, source.tolist(), goal.tolist()),
        )
        assert best is not None or not crowd.found
        if crowd.found:
            check(edge, source, goal, crowd, 16)
            spent.append((float(crowd.arrival.sum()), best))
        found += best is not None
    sums, bests = np.array(spent).T
    assert len(sums) >= 0.9 * found  # measured 36 of 38: orders of priority are not complete
    assert (sums <= 1.25 * bests).all() and sums.sum() <= 1.02 * bests.sum()  # measured 1.17 and 1.005
    assert (sums >= bests).all()


def test_three_agents_of_each_room_go_through_one_door():
    number = {cell: i for i, cell in enumerate(CELLS)}
    edge = np.zeros((len(CELLS), len(CELLS)), bool)
    for cell in CELLS:
        edge[number[cell], [number[n] for n in neighbours(cell)]] = True
    left, right = [(0, 0), (0, 1), (0, 2)], [(6, 0), (6, 1), (6, 2)]
    source = np.array([number[c] for c in left + right])
    goal = np.array([number[c] for c in right + left])
    crowd = FIND(jnp.asarray(edge), jnp.asarray(source), jnp.asarray(goal), 40)
    assert crowd.found
    check(edge, source, goal, crowd, 40)
    times = [np.flatnonzero(path == number[DOOR])[0] for path in np.asarray(crowd.node)]
    assert len(set(times)) == 6


def test_agents_without_a_way_are_told():
    line = jnp.asarray(np.eye(3, k=1, dtype=bool) | np.eye(3, k=-1, dtype=bool))
    crowd = FIND(line, jnp.array([0, 2]), jnp.array([2, 0]), 9)  # nobody can step aside
    assert not crowd.found and np.isinf(np.asarray(crowd.arrival)).sum() == 1
    assert orders(3).shape == (6, 3) and orders(6).shape == (12, 6)
    with pytest.raises(UserError, match="0 ticks"):
        paths_apart(line, jnp.array([0]), jnp.array([1]), 0)
