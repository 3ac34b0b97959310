"""The waypoint controller of D4RL's maze2d: a planner on the grid, and a PD law towards its waypoints.

After D4RL's `pointmaze` (arXiv:2004.07219, 5; github.com/Farama-Foundation/D4RL), with its habits: it
pursues the integer that a goal rounds to, not the goal, and a cell that is drawn again keeps its old route.
"""

import math
from collections.abc import Iterator

from jdp.tasks.maze2d_ball import State
from jdp.tasks.mazes import Maze, steps_to

P_GAIN, D_GAIN = 10.0, -1.0
SOLVED, SLOW = 0.1, 0.1  # a place is reached within SOLVED, by a ball that moved less than SLOW in a step
WAYPOINT_JITTER = 0.2  # how far below a cell's integer a waypoint may lie, on each axis
LONGEST_ROUTE = 100  # cells
# The planner's moves, in the order in which it prefers them where two are as good.
_MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))

Point = tuple[float, float]
Cell = tuple[int, int]


def route(maze: Maze, start: Cell, goal: Cell) -> list[Cell]:
    """The cells after `start` up to `goal` that D4RL's planner walks through; from `goal` to itself, `goal`.

    It is greedy for the values of 50 sweeps of value iteration (discount .99, reward 1 at the goal) and
    takes the first of equals: the fewest steps, preferring column - 1, column + 1, row - 1, row + 1.
    `start` may be a wall: half a cell beside one, a position rounds to it.
    """
    if start == goal:
        return [goal]
    distance, cells, cell = steps_to(maze, goal), [], start
    while cell != goal and len(cells) < LONGEST_ROUTE:
        beside = [(cell[0] + i, cell[1] + j) for i, j in _MOVES]
        free = [n for n in beside if _inside(maze, n) and maze.free[n]]
        cell = min(free, key=lambda n: distance[n], default=cell)
        cells.append(cell)
    return cells


def _inside(maze: Maze, cell: Cell) -> bool:
    return 0 <= cell[0] < maze.free.shape[0] and 0 <= cell[1] < maze.free.shape[1]


class WaypointController:
    """One controller, which remembers its route.

    Args:
        jitter: uniform numbers of [0, 1), two for each waypoint but the last.
        rounds: whether it pursues the integer that a goal rounds to, as D4RL's does, or the goal itself.
    """

    def __init__(self, maze: Maze, jitter: Iterator[float], *, rounds: bool = True):
        self._maze, self._jitter, self._rounds = maze, jitter, rounds
        self._target: Point | None = None
        self._waypoints: list[Point] = []
        self._index = 0
        self._last: Point = (0.0, 0.0)

    def act(self, state: State, goal: Point) -> tuple[Point, bool]:
        """The action at `state` before noise, within [-1, 1], and whether `goal` is reached."""
        q0, q1, v0, v1 = state
        target = (round(goal[0]), round(goal[1])) if self._rounds else goal
        if target != self._target:
            self._plan(state, goal, target)
        moved = math.hypot(self._last[0] - q0, self._last[1] - q1)
        self._last = q0, q1
        solved = moved < SLOW and math.hypot(q0 - target[0], q1 - target[1]) < SOLVED
        aim = target if solved else self._waypoints[self._index]
        if not solved and moved < SLOW and math.hypot(q0 - aim[0], q1 - aim[1]) < SOLVED:
            self._index += 1
        a0, a1 = P_GAIN * (aim[0] - q0) + D_GAIN * v0, P_GAIN * (aim[1] - q1) + D_GAIN * v1
        return (min(max(a0, -1.0), 1.0), min(max(a1, -1.0), 1.0)), solved

    def _plan(self, state: State, goal: Point, target: Point) -> None:
        start, end = (round(state[0]), round(state[1])), (round(goal[0]), round(goal[1]))
        cells = route(self._maze, start, end)
        last = target if cells[-1] == end else self._below(cells[-1])
        self._waypoints = [*(self._below(cell) for cell in cells[:-1]), last]
        self._target, self._index, self._last = target, 0, start

    def _below(self, cell: Cell) -> Point:
        return cell[0] - WAYPOINT_JITTER * next(self._jitter), cell[1] - WAYPOINT_JITTER * next(self._jitter)
