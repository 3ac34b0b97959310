"""D4RL's maze2d v1, made again: one ball that walks from random goal to random goal without a reset.

After D4RL (Fu et al. 2020, arXiv:2004.07219, 5) and its repository (github.com/Farama-Foundation/D4RL:
the generator of maze2d, and the script that relabels its rewards), with the noise of the files of v1. Its
habits are kept:

- A goal is a random free cell plus U(-.1, .1) on each axis; the controller pursues the cell's integer. A
  segment ends within .1 of that, or after the task's time limit, and nothing is a terminal.
- The row after an end repeats the observation before it, while the ball goes on; its action comes from
  that stale observation, and `infos` holds the true state.
- A cell drawn again is reached already, so such a segment has one row.
- Rewards are of the row's own observation and of the task's fixed goal.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdp.data import d4rl
from jdp.data.recipes.recipe import Order, Recipe, Store
from jdp.data.write import write_columns
from jdp.tasks import maze2d, maze2d_ball, maze2d_controller
from jdp.tasks.maze2d_controller import Point, WaypointController
from jdp.tasks.mazes import Maze, point_maze

ROWS = {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000}
NAMES = tuple(f"maze2d-{maze}{dense}-v1" for maze in ROWS for dense in ("", "-dense"))
TIME_LIMITS = {"umaze": 300, "medium": 600, "large": 800}
PLACE_JITTER = 0.1  # half-width around a cell's integer, of a goal and of the start
LICENCE = "MIT: rows made by jdp (the recipe is D4RL's, whose own files are CC BY 4.0)"
_BLOCK = 1 << 14  # rows, or random numbers, that are made at once


class Variant(NamedTuple):
    """What a control changes; the defaults are D4RL's v1."""

    noise: float = 0.5  # standard deviation of what is added to an action, before it is clipped again
    rounds: bool = True  # whether the controller pursues the integer that a goal rounds to


def recipe(name: str) -> Recipe | None:
    """The recipe of a full name, "maze2d-large-v1" or "maze2d-large-dense-v1"; None for other datasets."""
    found = maze2d.parse(name)
    if found is None or found.dataset != name:
        return None
    dense = "-dense" in name
    facts = {
        "recipe": "maze2d 1",  # goes up where the same seed gives other rows
        "maze": found.maze,
        "rewards": "exp(-distance)" if dense else "1 within .5 of the goal",
        "controller": "waypoints of D4RL's pointmaze",
        "p_gain": maze2d_controller.P_GAIN,
        "d_gain": maze2d_controller.D_GAIN,
        "noise": Variant().noise,
        "time_limit": TIME_LIMITS[found.maze],
    }
    write = partial(_write, found.maze, dense)
    return Recipe(name, "D4RL", ROWS[found.maze], facts, write, _STORE, LICENCE)


def _write(name: str, dense: bool, path: Path, order: Order) -> None:
    columns = collect(name, order.seed, order.rows, dense=dense, progress=order.progress)
    write_columns(
        path, columns, order.facts
    )  # noise does not compress, and plain arrays are read in a moment


_STORE = Store(d4rl.dataset_dir, "D4RL_DATASET_DIR", ".hdf5", d4rl.told)


def collect(
    name: str,
    seed: int,
    rows: int,
    *,
    dense: bool = False,
    variant: Variant = Variant(),  # noqa: B008 (immutable)
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """The columns of a D4RL file: the first `rows` rows of the chain of `seed` in the maze `name`.

    `observations` `[N, 4]` (q0, q1, v0, v1), `actions` `[N, 2]`, `rewards` `[N]`, `terminals` `[N]` (none),
    `timeouts` `[N]` (ends of segments), and `[N, 2]` `infos/goal`, `infos/qpos`, `infos/qvel`. Equal
    arguments give equal bits, a longer chain begins with the shorter one, and `dense` changes rewards alone.

    Args:
        name: "umaze", "medium" or "large".
        progress: called with the number of rows so far, every few thousand.
    """
    values, walk = np.empty((rows, 13), np.float32), chain(name, seed, variant)
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        values[start:stop] = list(islice(walk, stop - start))
        if progress is not None:
            progress(stop)
    observations, actions, goal, qpos, qvel, ends = map(
        np.ascontiguousarray, np.split(values, (4, 6, 8, 10, 12), axis=1)
    )
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rewards(name, observations, dense=dense),
        "terminals": np.zeros(rows, bool),
        "timeouts": ends[:, 0] == 1,
        "infos/goal": goal,
        "infos/qpos": qpos,
        "infos/qvel": qvel,
    }


def rewards(name: str, observations: np.ndarray, *, dense: bool = False) -> np.ndarray:
    """`[N]` float32: 1 where `observations` `[N, 4]` lie within .5 of the goal; dense: exp(-distance)."""
    away = np.linalg.norm(observations[:, :2] - np.array(maze2d.GOALS[name], np.float64), axis=1)
    return (np.exp(-away) if dense else away <= maze2d.REACHED).astype(np.float32)


def chain(name: str, seed: int, variant: Variant) -> Iterator[tuple[float, ...]]:
    """Row after row, without end: observation, action, goal, true position and velocity, 1 at an end."""
    maze, limit = point_maze(name), TIME_LIMITS[name]
    places, normal, uniform = (np.random.default_rng([seed, part]) for part in range(3))
    noise, ball = _numbers(normal.standard_normal), maze2d_ball.make_ball(maze)
    controller = WaypointController(maze, _numbers(uniform.random), rounds=variant.rounds)
    goals = _places(maze, places)
    v0, v1 = (maze2d.START_SPEED * places.standard_normal(2)).tolist()
    seen = state = (*next(goals), v0, v1)
    goal, steps = next(goals), 0
    while True:
        action, ended = controller.act(seen, goal)
        a0 = min(max(action[0] + variant.noise * next(noise), -1.0), 1.0)
        a1 = min(max(action[1] + variant.noise * next(noise), -1.0), 1.0)
        ended = ended or steps >= limit
        yield (*seen, a0, a1, *goal, *state, 1.0 if ended else 0.0)
        state = maze2d_ball.step(ball, state, (a0, a1))
        if ended:
            goal, steps = next(goals), 0  # and what is seen stays as it is
        else:
            seen, steps = state, steps + 1


def _places(maze: Maze, rng: np.random.Generator) -> Iterator[Point]:
    cells = maze.free_cells
    while True:
        place = cells[rng.integers(len(cells))] + rng.uniform(-PLACE_JITTER, PLACE_JITTER, 2)
        yield float(place[0]), float(place[1])


def _numbers(draw: Callable[[int], np.ndarray]) -> Iterator[float]:
    while True:
        yield from draw(_BLOCK).tolist()
