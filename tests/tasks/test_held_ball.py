"""The ball whose actions are held: clearance, motion, what is around it; an expert."""

import jax
import jax.numpy as jnp
import numpy as np

from jdp.tasks import Maze, held_ball, random_mazes
from jdp.tasks.maze2d_ball import GEAR, RADIUS
from jdp.tasks.simulators.point_maze import clearance, grid_of


def test_the_local_map_is_what_stands_around_the_ball():
    """Against the maze cell by cell; beyond its rim all is wall."""
    maze = random_mazes.corridors(np.random.default_rng(0), 3, 1)
    points = np.random.default_rng(1).uniform(-3.4, 3.4, (40, 2)).astype(np.float32)
    walls, offset = jax.jit(jax.vmap(lambda p: held_ball.local_map(grid_of(maze), p, 5)))(points)
    for point, shown, off in zip(points, np.asarray(walls), np.asarray(offset), strict=True):
        i, j = maze.xy_to_cell(point)
        around = [[(a, b) for b in range(j - 2, j + 3)] for a in range(i - 2, i + 3)]
        expected = [[not (0 <= a < 7 and 0 <= b < 7 and maze.free[a, b]) for a, b in row] for row in around]
        np.testing.assert_array_equal(shown, expected)
        there = maze.cell_to_xy((i, j)) + off * maze.frame[1]
        np.testing.assert_allclose(there, point, atol=1e-5)


def test_clearance_is_the_distance_to_the_nearest_wall():
    """Against all walls of the maze, at random places; walls on other sides are further away than .4 m."""
    maze = Maze(("####", "#..#", "#.##", "####"))
    walls = maze.cell_to_xy(np.argwhere(~maze.free))
    points = np.random.default_rng(0).uniform(-2.2, 2.2, (300, 2)).astype(np.float32)
    found = np.asarray(jax.jit(jax.vmap(lambda p: clearance(p, grid_of(maze))))(points))
    exact = np.linalg.norm(np.maximum(np.abs(points[:, None] - walls) - 0.5, 0), axis=-1).min(1) - RADIUS
    inside = maze.is_free(points)
    np.testing.assert_allclose(np.minimum(found, 0.4)[inside], np.minimum(exact, 0.4)[inside], atol=1e-6)
    assert (found[~inside] == -1).all() and inside.sum() > 20


def test_a_velocity_is_made_up_of_the_last_one_and_of_the_action():
    maze = Maze(("#####", "#...#", "#...#", "#...#", "#####"))
    state, action = jnp.array([0.0, 0.1, 0.7, -0.4]), jnp.array([0.3, -0.2])
    after, kept = held_ball.move(grid_of(maze), state, action)
    expected = held_ball.KEEPS * state[2:] + held_ball.PUSHES * action
    np.testing.assert_allclose(after[2:], expected, rtol=1e-5)
    assert kept and 0.9 < held_ball.PUSHES < held_ball.HOLD * GEAR * 0.01 / 4.0


def test_experts_walk_to_goal_after_goal_and_touch_no_wall_but_when_they_are_kicked():
    rng = np.random.default_rng(0)
    grids = random_mazes.grids_of([random_mazes.corridors(rng, 3, 2) for _ in range(4)])
    cells, steps = (jnp.asarray(x) for x in random_mazes.ways(np.asarray(grids.blocked)))
    walk = jax.jit(held_ball.walks, static_argnames=("walkers", "length"))
    found = jax.tree.map(np.asarray, walk(jax.random.key(0), grids, cells, steps, walkers=5, length=300))
    assert (
        found.state.shape == (4, 5, 300, 4) and found.free.mean() > 0.98 and np.abs(found.action).max() <= 1
    )
    assert (found.left.sum(-1) >= 1).all()  # 12 s each: all have been somewhere
    # Where no kick came, the velocity is what the last action makes of it, off the walls.
    calm = (~found.kicked & found.free)[..., 1:] & found.free[..., :-1]
    made = held_ball.KEEPS * found.state[..., :-1, 2:] + held_ball.PUSHES * found.action[..., :-1, :]
    np.testing.assert_allclose(found.state[..., 1:, 2:][calm], made[calm], atol=1e-4)
    assert 0.01 < found.kicked.mean() < 0.03
