"""Mazes as grids of cells: where the walls stand, and the shortest way from one point to another."""

import difflib
import json
import re
from collections import deque
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike

from jdp.errors import UserError
from jdp.types import Spec

_STEPS = ((-1, 0), (0, -1), (1, 0), (0, 1))


@dataclass(frozen=True)
class Maze:
    """A grid of square cells; cell `(i, j)` is row i, column j of `rows`.

    The defaults are those of gymnasium-robotics: the middle of the map is the origin, x points right and
    y up. Equal mazes compare equal and hash alike.
    """

    rows: tuple[str, ...]  # "#" is a wall, "." is free
    scale: float = 1.0  # side of a cell, in the units of the task
    first: tuple[float, float] | None = None  # centre (x, y) of cell (0, 0); None: the origin is the middle
    y_up: bool = True  # whether y falls from row to row

    @cached_property
    def free(self) -> np.ndarray:
        """`[I, J]` bool, the cells without a wall."""
        return np.array([[mark == "." for mark in row] for row in self.rows])

    @cached_property
    def free_cells(self) -> np.ndarray:
        """`[F, 2]` int64, the free cells row by row."""
        return np.argwhere(self.free)

    @cached_property
    def frame(self) -> tuple[np.ndarray, np.ndarray]:
        """The centre of cell (0, 0), and the steps of x per column and of y per row."""
        height, width = self.free.shape
        y_step = -self.scale if self.y_up else self.scale
        middle = (0.5 * (1 - width) * self.scale, 0.5 * (1 - height) * y_step)
        return np.array(self.first or middle), np.array([self.scale, y_step])

    def cell_to_xy(self, cells: ArrayLike) -> np.ndarray:
        """Centres `[..., 2]` of `cells` `[..., 2]`."""
        first, step = self.frame
        return first + np.asarray(cells)[..., ::-1] * step

    def xy_to_cell(self, xy: ArrayLike) -> np.ndarray:
        """`[..., 2]` int64, the cells of points `[..., 2]`; they may lie outside the map."""
        first, step = self.frame
        return np.floor((np.asarray(xy) - first) / step + 0.5).astype(np.int64)[..., ::-1]

    def is_free(self, xy: ArrayLike, radius: float = 0.0) -> np.ndarray:
        """`[...]` bool: whether a square of half-width `radius` around each point `[..., 2]` meets no wall.

        What lies outside the map is no free place. `radius` is at most half a cell.
        """
        xy = np.asarray(xy, np.float64)
        corners = np.array([(a, b) for a in (-1, 1) for b in (-1, 1)] if radius else [(0, 0)])
        cells = self.xy_to_cell(xy[..., None, :] + radius * corners)
        inside = np.all((cells >= 0) & (cells < self.free.shape), axis=-1)
        i, j = np.moveaxis(np.where(inside[..., None], cells, 0), -1, 0)
        return np.all(inside & self.free[i, j], axis=-1)

    def path(self, start: ArrayLike, goal: ArrayLike) -> np.ndarray:
        """`[K, 2]`, the way from point `start` to point `goal` through the fewest cells.

        The waypoints are the centres of the cells between those of `start` and `goal`, then `goal`. The
        straight line to each next one stays within free cells.

        Raises:
            UserError: if either point is no free place or there is no way.
        """
        check_place(self, start, "the start")
        check_place(self, goal, "the goal")
        cell, target = (tuple(self.xy_to_cell(p).tolist()) for p in (start, goal))
        distance = steps_to(self, target)
        if distance[cell] < 0:
            raise UserError(f"there is no way from {np.asarray(start)} to {np.asarray(goal)} in this maze")
        cells = []
        while cell != target:
            neighbours = [(cell[0] + i, cell[1] + j) for i, j in _STEPS]
            cell = next(n for n in neighbours if distance[n] == distance[cell] - 1)
            cells.append(cell)
        centres = self.cell_to_xy(np.array(cells[:-1]).reshape(-1, 2))
        return np.concatenate([centres, np.asarray(goal, np.float64)[None]])


@lru_cache(maxsize=1024)
def steps_to(maze: Maze, target: tuple[int, int]) -> np.ndarray:
    """`[I, J]` int64, cells to walk from each cell to `target`; -1 in walls and where there is no way."""
    distance = np.full(maze.free.shape, -1)
    distance[target] = 0
    queue = deque([target])
    while queue:
        i, j = queue.popleft()
        for n in ((i + a, j + b) for a, b in _STEPS):
            inside = 0 <= n[0] < maze.free.shape[0] and 0 <= n[1] < maze.free.shape[1]
            if inside and maze.free[n] and distance[n] < 0:
                distance[n] = distance[i, j] + 1
                queue.append(n)
    return distance


_UMAZE = ("#####", "#...#", "###.#", "#...#", "#####")
_MEDIUM = ("########", "#..##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#..#", "########")
_LARGE = (
    "############",
    "#....#.....#",
    "#.##.#.#.#.#",
    "#......#...#",
    "#.####.###.#",
    "#..#.#.....#",
    "##.#.#.#.###",
    "#..#...#...#",
    "############",
)
_GIANT = (
    "################",
    "#.#......##....#",
    "#.#.##.#.#..##.#",
    "#...#..#...#...#",
    "#.###.######.#.#",
    "#...#...#....#.#",
    "###.#.#..#.#.###",
    "#...#..#...#...#",
    "#.#.#.######.#.#",
    "#.###...#...##.#",
    "#.....#...#....#",
    "################",
)
_TELEPORT = (
    "############",
    "#.....#.#..#",
    "##.#...#..##",
    "##.###.....#",
    "#....#.#.#.#",
    "#.##.#.#.#.#",
    "#.##.#.#.#.#",
    "#....#...#.#",
    "############",
)
_OPEN = ("#######", "#.....#", "#.....#", "#.....#", "#######")
MAZES = {"umaze": _UMAZE, "medium": _MEDIUM, "large": _LARGE, "open": _OPEN}  # of gymnasium-robotics
_OGBENCH = {"medium": _MEDIUM, "large": _LARGE, "giant": _GIANT, "teleport": _TELEPORT}
POINT_ENV_IDS = {
    "umaze": "PointMaze_UMaze-v3",
    "medium": "PointMaze_Medium-v3",
    "large": "PointMaze_Large-v3",
    "open": "PointMaze_Open-v3",
}
_ROBOTICS_ID = re.compile(r"(Point|Ant)Maze_(UMaze|Medium|Large|Open)(_Diverse_GR?)?(Dense)?-v\d+")
_OGBENCH_ID = re.compile(r"(?:point|ant|humanoid)maze-(medium|large|giant|teleport)-[\w-]+")


def point_maze(name: str) -> Maze:
    """The maze of gymnasium-robotics' `PointMaze_*` tasks: "umaze", "medium", "large" or "open".

    Raises:
        UserError: for another name, with the nearest.
    """
    if name not in MAZES:
        near = difflib.get_close_matches(name.lower(), MAZES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown maze {name!r}: {hint}choose one of {', '.join(MAZES)}")
    return Maze(MAZES[name])


def maze_of(task: str | Spec | None) -> Maze | None:
    """The maze of a PointMaze or AntMaze task of gymnasium-robotics or OGBench; None for other tasks.

    Of OGBench's teleport maze these are the walls; who enters the cells (4, 6) or (5, 1) comes out elsewhere.
    Of a `Spec` whose task has a `maze_map` of its own it is that one.
    """
    env_id = (task.env_id if isinstance(task, Spec) else task) or ""
    own = (
        json.loads(task.env_spec)["kwargs"].get("maze_map")
        if isinstance(task, Spec) and task.env_spec
        else None
    )
    if own is not None and env_id.startswith(("PointMaze_", "AntMaze_")):
        rows = tuple("".join("#" if cell == 1 else "." for cell in row) for row in own)
        return Maze(rows, 1.0 if env_id.startswith("Point") else 4.0)
    if robotics := _ROBOTICS_ID.fullmatch(env_id):
        return Maze(MAZES[robotics[2].lower()], 1.0 if robotics[1] == "Point" else 4.0)
    if ogbench := _OGBENCH_ID.fullmatch(env_id):
        return Maze(_OGBENCH[ogbench[1]], 4.0, (-4.0, -4.0), y_up=False)
    return None


def check_place(maze: Maze, xy: ArrayLike, what: str, radius: float = 0.0) -> np.ndarray:
    """`xy` as `[2]` float64. Raises `UserError` unless it is a free place of `maze`; `what` names it."""
    try:
        point = np.asarray(xy, np.float64)
    except (TypeError, ValueError):
        point = np.empty(0)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise UserError(f"{what} must be two numbers (x, y), not {xy!r}")
    if not maze.is_free(point, radius):
        cell = maze.xy_to_cell(point)
        inside = np.all((cell >= 0) & (cell < maze.free.shape))
        corners = maze.cell_to_xy(np.array([(0, 0), maze.free.shape]) - [[0], [1]])
        (x0, y0), (x1, y1) = corners.min(0) - maze.scale / 2, corners.max(0) + maze.scale / 2
        nearest = maze.cell_to_xy(maze.free_cells)
        nearest = nearest[np.argmin(np.linalg.norm(nearest - point, axis=1))]
        where = "in a wall" if inside else f"outside the maze (x {x0:g} to {x1:g}, y {y0:g} to {y1:g})"
        raise UserError(
            f"{what} ({point[0]:g}, {point[1]:g}) lies {where}; the nearest free cell is centred on "
            f"({nearest[0]:g}, {nearest[1]:g})"
        )
    return point
