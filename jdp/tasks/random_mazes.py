"""Random mazes for the ball of PointMaze, and problems of motion planning in them; numpy.

Mazes of one size are arrays of one shape (`Grid`), so that a program made for some serves all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdp.errors import UserError, check_settings
from jdp.tasks.mazes import Maze, steps_to
from jdp.tasks.simulators.point_maze import Grid, grid_of


def corridors(rng: np.random.Generator, rooms: int, loops: int = 0) -> Maze:
    """A maze of `2 rooms + 1` cells on a side: one way from anywhere to anywhere, and `loops` walls less.

    All mazes of the same numbers have equally many free cells.

    Raises:
        UserError: for more loops than there are walls between rooms.
    """
    walls = 2 * rooms * (rooms - 1) - (rooms**2 - 1)
    check_settings("corridors", rooms=(rooms, 2, 1000), loops=(loops, 0, walls))
    free = np.zeros((2 * rooms + 1, 2 * rooms + 1), bool)
    stack = [(1, 1)]
    free[1, 1] = True
    while stack:
        i, j = stack[-1]
        ways = [(i + 2 * a, j + 2 * b) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        ways = [w for w in ways if 0 < w[0] < len(free) and 0 < w[1] < len(free) and not free[w]]
        if not ways:
            stack.pop()
            continue
        there = ways[rng.integers(len(ways))]
        free[there] = free[(i + there[0]) // 2, (j + there[1]) // 2] = True
        stack.append(there)
    inner = np.add.outer(np.arange(len(free)), np.arange(len(free))) % 2 == 1  # between two rooms
    inner[[0, -1]] = inner[:, [0, -1]] = False
    closed = np.argwhere(inner & ~free)
    free[tuple(closed[rng.permutation(len(closed))[:loops]].T)] = True
    return _maze(free)


def scattered(rng: np.random.Generator, cells: int, share: float) -> Maze:
    """A square of `cells` cells on a side, within a wall, of which a `share` is blocked here and there."""
    check_settings("scattered", cells=(cells, 2, 1000), share=(share, 0.0, 1.0))
    inside = np.ones(cells**2, bool)
    inside[rng.permutation(cells**2)[: round(share * cells**2)]] = False
    return _maze(np.pad(inside.reshape(cells, cells), 1))


def _maze(free: np.ndarray) -> Maze:
    return Maze(tuple("".join(".#"[not cell] for cell in row) for row in free))


class Places(NamedTuple):
    """Where N problems begin and end; numpy."""

    start: np.ndarray  # [N, 4], the ball at rest
    goal: np.ndarray  # [N, 2]


def places(rng: np.random.Generator, mazes: Sequence[Maze], apart: int, noise: float = 0.2) -> Places:
    """One problem in each maze: a way leads from start to goal, through `apart` cells or more.

    Both lie at random within `noise` m of a cell's centre, on each axis.

    Raises:
        UserError: where a maze has no two cells so far apart.
    """
    starts, goals = [], []
    for maze in mazes:
        for index in rng.permutation(len(maze.free_cells)):
            start = maze.free_cells[index]
            far = np.argwhere(steps_to(maze, tuple(start.tolist())) >= apart)
            if len(far):
                break
        else:
            raise UserError(f"no two cells of this maze are {apart} cells apart: ask for fewer\n{maze.rows}")
        ends = maze.cell_to_xy(np.stack([start, far[rng.integers(len(far))]]))
        ends = ends + rng.uniform(-noise, noise, (2, 2))
        starts.append(np.concatenate([ends[0], np.zeros(2)]))
        goals.append(ends[1])
    return Places(np.array(starts, np.float32), np.array(goals, np.float32))


def grids_of(mazes: Sequence[Maze]) -> Grid:
    """Leaves `[N, ...]` of N mazes of one size."""
    return jax.tree.map(lambda *x: jnp.stack(x), *map(grid_of, mazes))


def ways(blocked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(cells [N, F, 2], steps [N, F, I, J])`: the free cells of N mazes, and from anywhere the way to each.

    Steps are counted in cells, `I J` from walls. All mazes `[N, I, J]` must have F free cells.

    Raises:
        UserError: where they have not.
    """
    counts = (~blocked).sum((1, 2))
    if len(np.unique(counts)) != 1:
        raise UserError("these mazes have different numbers of free cells: draw `corridors` of one size")
    cells = np.argwhere(~blocked)[:, 1:].reshape(len(blocked), counts[0], 2)
    none = blocked[0].size
    wall = np.broadcast_to(blocked[:, None], (*cells.shape[:2], *blocked.shape[1:]))
    steps = np.full(wall.shape, none, np.int32)
    n, f = np.indices(cells.shape[:2])
    steps[n, f, cells[..., 0], cells[..., 1]] = 0
    before = None
    while before is None or (steps != before).any():
        before, wide = steps, np.pad(steps, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=none)
        beside = [wide[..., 1:-1, :-2], wide[..., 1:-1, 2:], wide[..., :-2, 1:-1], wide[..., 2:, 1:-1]]
        steps = np.where(wall, none, np.minimum(steps, np.minimum.reduce(beside) + 1))
    return cells, steps
