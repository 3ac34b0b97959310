"""Two rooms of a grid with one door, and exact denoisers of what was walked there."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np

from jdp.data import segment_rows
from jdp.data.episodes import Origin, make_episodes
from jdp.learning.plan_models import Model
from jdp.types import Spec, bind, expand

SPEC = Spec(2, 2, goal=(0, 1))
DOOR = (3, 1)
CELLS = [(x, y) for x in range(7) for y in range(3) if x != 3 or (x, y) == DOOR]
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
STD = 0.02  # of the exact denoisers, in standardised units


def neighbours(cell):
    return [n for dx, dy in MOVES if (n := (cell[0] + dx, cell[1] + dy)) in CELLS]


def steps_to(goal):
    """Steps of the shortest way from every cell, by breadth first."""
    found, queue = {goal: 0}, deque([goal])
    while queue:
        here = queue.popleft()
        for n in neighbours(here):
            if n not in found:
                found[n] = found[here] + 1
                queue.append(n)
    return found


DISTANCE = {goal: steps_to(goal) for goal in CELLS}
PAIRS = [(a, b) for a in CELLS for b in CELLS if a != b]


def shortest_walk(rng, start, goal, length):
    """`[length, 2]`, a shortest way, drawn at random, and then the goal again and again."""
    walk = [start]
    while len(walk) < length:
        near = [n for n in neighbours(walk[-1]) if DISTANCE[goal][n] < DISTANCE[goal][walk[-1]]]
        walk.append(near[rng.integers(len(near))] if near else walk[-1])
    return np.array(walk)


def wandering(rng, start, length):
    """`[length, 2]`, a walk that turns back only where it must."""
    walk = [start]
    while len(walk) < length:
        near = neighbours(walk[-1])
        ahead = [n for n in near if len(walk) < 2 or n != walk[-2]] or near
        walk.append(ahead[rng.integers(len(ahead))])
    return np.array(walk)


def rows_of_walks(walks, length):
    """`SegmentRows` of `[E, L, 2]` walks; the last action of an episode is to stay."""
    walks = np.asarray(walks, np.float32)
    moves = np.concatenate([np.diff(walks, axis=1), np.zeros_like(walks[:, :1])], axis=1)
    count, steps, _ = walks.shape
    ends = np.tile(np.arange(steps) == steps - 1, count)
    flat = walks.reshape(-1, 2)
    episodes = make_episodes(
        flat,
        moves.reshape(-1, 2),
        np.zeros(len(flat), np.float32),
        None,
        np.zeros(len(flat), bool),
        ends,
        spec=SPEC,
        origin=Origin("two rooms", "file", "", "", 0, ""),
    )
    return segment_rows(episodes, length), moves


def move(position, action):
    """Where `action` leads, and whether that is a cell next to `position` (or itself)."""
    there = position + np.rint(action)
    legal = [tuple(t) in CELLS and np.abs(t - p).sum() <= 1 for t, p in zip(there, position, strict=True)]
    return np.where(np.array(legal)[:, None], there, position), np.array(legal)


def _bank(bank, x, sigma, *, std):
    s = jnp.square(jnp.broadcast_to(expand(sigma, x), x.shape))[:, None]
    gap, total = x[:, None] - bank[None], std**2 + s
    score = -0.5 * jnp.sum(jnp.square(gap) / total, axis=(2, 3))
    mean = x[:, None] - s / total * gap
    return jnp.sum(jax.nn.softmax(score, axis=1)[:, :, None, None] * mean, axis=1)


def exact_model(config):
    """In the place of `model`: the exact denoiser of a bank of segments `[N, T, D]`, which is the state."""
    del config
    return Model(
        init=lambda key, x0, condition: jnp.zeros(()),
        update=lambda key, state, x0, *rest: (state, {"x0": x0}),
        denoiser=lambda state, condition: bind(_bank, state, std=STD),
    )


def counted(function):
    """The function jitted, and a list that grows when it is compiled."""
    traces = []

    def traced(*args):
        traces.append(1)
        return function(*args)

    return jax.jit(traced), traces
