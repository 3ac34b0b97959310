"""Mazes, the waypoint controller, and what a collection in PointMaze says."""

import warnings

import gymnasium as gym
import numpy as np
import pytest

import jdp.data
from jdp.data.export import save_d4rl, save_minari
from jdp.errors import UserError
from jdp.tasks import MAZES, Maze, check_place, episode_limit, goal_entries, maze_of, point_maze
from jdp.tasks.collect import (
    ARRIVED,
    REWARDED,
    Collection,
    Route,
    advance,
    collect_point_maze,
    point_simulator,
    random_place,
    steer,
)
from jdp.tasks.mazes import POINT_ENV_IDS, steps_to

pytest.importorskip("gymnasium_robotics")


@pytest.mark.parametrize(
    "env_id", [*POINT_ENV_IDS.values(), "PointMaze_Medium_Diverse_GR-v3", "AntMaze_Large-v5"]
)
def test_the_maps_and_coordinates_are_those_of_gymnasium_robotics(env_id):
    from jdp.tasks import register

    register(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = gym.make(env_id).unwrapped.maze  # type: ignore[attr-defined]
    ours = maze_of(env_id)
    assert ours is not None and hash(ours) == hash(maze_of(env_id))
    np.testing.assert_array_equal(ours.free, np.array(theirs.maze_map, object) != 1)
    for cell in np.ndindex(ours.free.shape):
        xy = theirs.cell_rowcol_to_xy(np.array(cell))
        np.testing.assert_allclose(ours.cell_to_xy(cell), xy)
        near = xy + ours.scale * np.array([0.3, -0.4])
        np.testing.assert_array_equal(ours.xy_to_cell(near), theirs.cell_xy_to_rowcol(near))


@pytest.mark.parametrize(
    "name",
    [
        "pointmaze-medium-v0",
        "pointmaze-large-navigate-singletask-v0",
        "antmaze-giant-v0",
        "pointmaze-teleport-v0",
    ],
)
def test_the_maps_and_coordinates_are_those_of_ogbench(name):
    pytest.importorskip("ogbench")
    from jdp.evaluation import make_env

    theirs = make_env(name).unwrapped
    ours = maze_of(name)
    assert ours is not None
    np.testing.assert_array_equal(ours.free, theirs.maze_map == 0)  # type: ignore[attr-defined]
    for cell in ours.free_cells.tolist():
        np.testing.assert_allclose(ours.cell_to_xy(cell), theirs.ij_to_xy(cell))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MAZES)
def test_a_path_is_the_shortest_and_stays_in_free_cells(name):
    maze, rng = point_maze(name), np.random.default_rng(0)
    cells = [tuple(c) for c in maze.free_cells.tolist()]
    # Floyd and Warshall, as a reference for the number of cells
    distance = np.array([[0 if a == b else 1 if sum(np.abs(np.subtract(a, b))) == 1 else 999 for b in cells]
                         for a in cells])  # fmt: skip
    for k in range(len(cells)):
        distance = np.minimum(distance, distance[:, k, None] + distance[k])
    for i, target in enumerate(cells):
        np.testing.assert_array_equal([steps_to(maze, target)[c] for c in cells], distance[:, i])
    for _ in range(30):
        start, goal = random_place(maze, rng), random_place(maze, rng)
        way = np.concatenate([start[None], maze.path(start, goal)])
        np.testing.assert_array_equal(way[-1], goal)
        line = way[:-1, None] + np.linspace(0, 1, 50)[:, None] * (way[1:] - way[:-1])[:, None]
        assert maze.is_free(line).all()
        i, j = (cells.index(tuple(maze.xy_to_cell(p).tolist())) for p in (start, goal))
        assert len(way) - 1 == max(distance[i, j], 1)


def test_places_outside_and_in_walls_get_one_line():
    maze = point_maze("umaze")
    np.testing.assert_array_equal(check_place(maze, (1, 1), "the goal"), [1.0, 1.0])
    for point, words in {
        (0.0, 9.0): "outside the maze",
        (0.0, 0.0): "in a wall",
        (np.nan, 0): "two numbers",
    }.items():
        with pytest.raises(UserError, match=f"the goal.*{words}") as error:
            check_place(maze, point, "the goal")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="two numbers"):
        maze.path((1, 1), "there")  # type: ignore[arg-type]
    # the ball has a radius: a place 5 cm off the wall is no start
    assert maze.is_free((-1.45, 1.0)) and not maze.is_free((-1.45, 1.0), radius=0.1)
    split = Maze(("#####", "#.#.#", "#####"))
    with pytest.raises(UserError, match="no way"):
        split.path(split.cell_to_xy((1, 1)), split.cell_to_xy((1, 3)))


@pytest.mark.parametrize("name", MAZES)
def test_the_controller_reaches_every_cell_from_everywhere(name):
    maze, point, rng = point_maze(name), point_simulator(name), np.random.default_rng(1)
    limit = episode_limit(POINT_ENV_IDS[name])
    assert limit is not None
    for cell in maze.free_cells:
        start = random_place(maze, rng)
        state = np.concatenate([start, np.zeros(2)])
        point.set_state(state[:2], state[2:])
        route = Route(maze.path(start, maze.cell_to_xy(cell)))
        for _ in range(limit):
            state = point.step(steer(state[:2], state[2:], route.waypoints[route.index]))[0]
            route = advance(route, state[:2])
            if np.linalg.norm(state[:2] - route.goal) < ARRIVED:
                break
        assert np.linalg.norm(state[:2] - route.goal) < ARRIVED, (start, route.goal)
    point.close()


@pytest.fixture(scope="module")
def collected():
    return collect_point_maze(Collection("medium", steps=2500, episode_steps=800, seed=3))


def test_the_simulator_does_what_the_data_say(collected):
    steps, timeouts = collected
    point, ends = point_simulator("medium"), np.flatnonzero(timeouts)
    np.testing.assert_array_equal(ends, [799, 1599, 2399, 2499])
    for i in range(0, len(timeouts), 5):
        point.set_state(steps.observation[i, :2].astype(float), steps.observation[i, 2:].astype(float))
        found = point.step(steps.action[i])[0]
        np.testing.assert_allclose(found[:2], steps.next_observation[i, :2], atol=1e-6)
        # an error of 1e-7 in the position is one of 1e-5 in the velocity at a wall (a step is .01 s)
        np.testing.assert_allclose(found[2:], steps.next_observation[i, 2:], atol=1e-4)
    inside = ~timeouts[:-1]
    np.testing.assert_array_equal(steps.next_observation[:-1][inside], steps.observation[1:][inside])
    assert np.abs(steps.observation[ends[:-1] + 1, 2:]).max() == 0  # resets are at rest
    assert not np.any(steps.terminal) and np.abs(steps.action).max() <= 1


def test_goals_follow_one_another_without_resets():
    """The reward falls when a goal was reached and the next one given; the ball goes on from there."""
    steps, timeouts = collect_point_maze(Collection("umaze", steps=3000, episode_steps=3000, noise=0.0))
    assert timeouts.sum() == 1
    given = np.flatnonzero(np.diff(steps.reward) < 0)
    assert len(given) > 20
    moved = np.linalg.norm(np.diff(steps.observation[:, :2], axis=0), axis=1)
    assert moved.max() < 0.01 * np.hypot(5.3, 5.3)  # of a step at the highest speed
    aims = steps.next_observation[given, :2]
    cells = np.unique(point_maze("umaze").xy_to_cell(aims), axis=0)
    np.testing.assert_array_equal(cells, point_maze("umaze").free_cells)
    # around each of them the reward is 1 from .45 on: the ball came no further than that from it
    for row, aim in zip(given, aims, strict=True):
        run = np.arange(row, max(row - 200, 0), -1)
        run = run[: np.argmin(np.append(steps.reward[run], 0.0))]
        assert np.linalg.norm(steps.next_observation[run, :2] - aim, axis=1).max() <= REWARDED + ARRIVED


def test_same_seed_same_bytes(tmp_path, collected):
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        found = collect_point_maze(Collection("medium", steps=2500, episode_steps=800, seed=seed))
        save_d4rl(tmp_path / name, *found, env_id="PointMaze_Medium-v3", metadata={"seed": 3})
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Collection("lage"), "did you mean large"),
        (Collection(steps=0), "steps is 0"),
        (Collection(episode_steps=-1), "episode_steps is -1"),
        (Collection(noise=float("nan")), "noise is nan"),
        (Collection(seed=-1), "seed is -1"),
    ],
)
def test_settings_that_mean_nothing_get_one_line(settings, words):
    with pytest.raises(UserError, match=words):
        collect_point_maze(settings)


def test_a_collection_reads_back_as_a_goal_task(tmp_path, monkeypatch, collected):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    save_d4rl(tmp_path / "x.hdf5", *collected, env_id="PointMaze_Medium-v3")
    save_minari("jdp/medium-v0", *collected, env_id="PointMaze_Medium-v3")
    for name in (str(tmp_path / "x.hdf5"), "jdp/medium-v0"):
        data = jdp.data.load(name)
        assert data.spec.goal == (0, 1) and data.spec.max_episode_steps == 600
        assert data.spec.env_id == "PointMaze_Medium-v3" and data.spec.score_range is None
        np.testing.assert_array_equal(data.observations, collected[0].observation)
        assert data.next_valid.all() and len(data.lengths) == 4


def test_bundled_and_not_bundled_names():
    data = jdp.data.load("pointmaze-large")
    assert data.spec.goal == (0, 1) and data.spec.max_episode_steps == 800
    assert "not D4RL data" in data.origin.notice and "D4RL-style" in data.origin.notice
    maze = maze_of(data.spec.env_id)
    assert maze is not None and maze.is_free(data.observations[:, :2]).all()
    visited = np.unique(maze.xy_to_cell(data.observations[:, :2]), axis=0)
    np.testing.assert_array_equal(visited, maze.free_cells)
    assert jdp.data.load("pointmaze-umaze").spec.max_episode_steps == 300
    with pytest.raises(UserError, match=r"collect_pointmaze.py --maze medium --out pointmaze-medium.hdf5"):
        jdp.data.load("pointmaze-medium")
    with pytest.raises(UserError, match="pointmaze-large"):
        jdp.data.load("pointmaze-lage")


def test_which_entries_a_goal_prescribes():
    assert goal_entries("PointMaze_Large_Diverse_GR-v3", 4) == goal_entries("AntMaze_UMaze-v4", 29) == (0, 1)
    assert goal_entries("antsoccer-arena-navigate-v0", 42) == (15, 16)
    assert goal_entries("cube-single-play-v0", 28) == tuple(range(28))
    assert (
        goal_entries("Hopper-v5", 11) == goal_entries(None, 3) == goal_entries("FrankaKitchen-v1", 59) == ()
    )
