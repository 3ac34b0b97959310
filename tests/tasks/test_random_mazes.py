"""Random mazes: what they promise."""

import numpy as np
import pytest

from jdp.errors import UserError
from jdp.tasks import random_mazes
from jdp.tasks.held_ball import KEPT
from jdp.tasks.maze2d_ball import RADIUS
from jdp.tasks.mazes import steps_to


def mazes(count, loops=2):
    rng = np.random.default_rng(0)
    return [random_mazes.corridors(rng, 3, loops) for _ in range(count)]


@pytest.mark.parametrize("loops", [0, 2, 4])
def test_corridors_lead_from_anywhere_to_anywhere_in_as_many_ways_as_are_asked(loops):
    """A connected grid without squares of four free cells is a graph: edges - cells + 1 of it are loops."""
    for maze in mazes(20, loops):
        free = maze.free
        assert free.shape == (7, 7) and not free[[0, -1]].any() and not free[:, [0, -1]].any()
        assert free[1::2, 1::2].all() and free.sum() == 9 + 8 + loops
        assert (steps_to(maze, (1, 1))[free] >= 0).all()
        edges = (free[1:] & free[:-1]).sum() + (free[:, 1:] & free[:, :-1]).sum()
        assert edges - free.sum() + 1 == loops
    assert len(set(mazes(20, loops))) >= (1 if loops == 4 else 5)  # of four loops more there is one maze


def test_what_no_maze_has_is_told():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"corridors\.loops is 5; it must lie between 0 and 4"):
        random_mazes.corridors(rng, 3, 5)
    with pytest.raises(UserError, match="no two cells of this maze are 30 cells apart"):
        random_mazes.places(rng, mazes(1), 30)
    with pytest.raises(UserError, match="different numbers of free cells"):
        random_mazes.ways(np.array([[[False, True]], [[False, False]]]))


def test_problems_are_as_far_apart_as_is_asked_and_their_ends_are_free():
    rng = np.random.default_rng(1)
    some = [*mazes(30), *(random_mazes.scattered(rng, 5, 0.2) for _ in range(30))]
    for maze in some[30:]:
        assert maze.free.sum() == 20
    found = random_mazes.places(rng, some, 3)
    for maze, start, goal in zip(some, *found, strict=True):
        assert maze.is_free(start[:2], RADIUS + KEPT) and maze.is_free(goal, RADIUS)
        assert steps_to(maze, tuple(maze.xy_to_cell(goal).tolist()))[tuple(maze.xy_to_cell(start[:2]))] >= 3


def test_ways_are_those_of_breadth_first_search():
    some = mazes(5)
    cells, steps = random_mazes.ways(np.array([~m.free for m in some]))
    for maze, goals, found in zip(some, cells, steps, strict=True):
        for goal, way in zip(goals, found, strict=True):
            expected = steps_to(maze, tuple(goal.tolist()))
            np.testing.assert_array_equal(way, np.where(maze.free, expected, maze.free.size))
