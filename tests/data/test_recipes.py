"""Datasets made again by the official recipe: maze2d's ball, planner and controller, and the files made."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.stats import norm

import jdp.data
from jdp.data import names, recipes
from jdp.data.export import save_minari
from jdp.data.recipes import Making, maze2d
from jdp.data.recipes.maze2d_facts import routes_followed, statistics, step_errors, wall_distance
from jdp.errors import UserError
from jdp.evaluation.agreement import Spread, outside, spreads
from jdp.tasks import maze2d_ball, point_maze
from jdp.tasks.maze2d import BODY, GOALS
from jdp.tasks.maze2d_controller import WaypointController, route

MAZES = tuple(maze2d.ROWS)
PROOF = Path(__file__).parents[2] / "results" / "recipes" / "maze2d.json"

CONTACTS = (  # rows of D4RL's files (CC BY 4.0) in contact with a wall: state, action, the next row's state
    (
        "umaze",
        (
            1.0523206,
            3.2187355,
            1.5460031,
            2.8245103,
            1.0,
            -0.9724781,
            1.0701255,
            3.212985,
            1.7804849,
            -0.57502645,
        ),
    ),
    (
        "medium",
        (
            1.8817782,
            6.1983266,
            -0.46850467,
            0.6113569,
            0.39089224,
            -0.1191361,
            1.8780353,
            6.1983185,
            -0.37429246,
            -0.0007699344,
        ),
    ),
    (
        "medium",
        (3.2285018, 2.2551177, -0.3940962, 3.515977, -1.0, 1.0, 3.2058618, 2.2823265, -2.2640007, 2.7208693),
    ),
    (
        "large",
        (
            7.2013865,
            7.9788413,
            1.9433317,
            -0.10519408,
            -0.96648103,
            -0.73405284,
            7.2001657,
            7.9760437,
            -0.12208751,
            -0.27976838,
        ),
    ),
    (
        "large",
        (
            5.209094,
            6.2642956,
            -0.11142165,
            3.3060992,
            -0.26240736,
            1.0,
            5.1956644,
            6.295067,
            -1.3429608,
            3.0771272,
        ),
    ),
)


@pytest.fixture(scope="module")
def chains():
    return {name: maze2d.collect(name, 7, 20_000) for name in MAZES}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(name="maze2d-umaze-v1", **settings: Any):
    return jdp.data.load(name, source="recipe", making=Making(rows=500)._replace(**settings))


# The ball


def places(name, count, rng):
    """Random places of the ball's middle, not in walls, and velocities."""
    maze = point_maze(name)
    cells = maze.free_cells[rng.integers(len(maze.free_cells), size=count)]
    qpos = cells - BODY + rng.uniform(-0.5, 0.5, (count, 2))
    qpos = qpos[wall_distance(maze, qpos) > maze2d_ball.RADIUS - 0.02]
    return qpos.tolist(), rng.uniform(-6, 6, qpos.shape).tolist()


@pytest.mark.parametrize("name", MAZES)
def test_away_from_walls_the_closed_form_is_mujocos_step_and_every_contact_is_mujocos(name):
    rng, ball = np.random.default_rng(0), maze2d_ball.make_ball(point_maze(name))
    near = 0
    for (q0, q1), v in zip(*places(name, 1500, rng), strict=True):
        state, action = (q0, q1, *np.clip(v, -5, 5).tolist()), tuple(rng.uniform(-1, 1, 2).tolist())
        reached = maze2d_ball.contact_step(ball, state, action)
        touching, found = ball.data.ncon > 0, maze2d_ball.step(ball, (q0, q1, *v), action)
        near += maze2d_ball.near_wall(ball, q0, q1)
        assert maze2d_ball.near_wall(ball, q0, q1) or not touching
        np.testing.assert_allclose(found, reached, rtol=0, atol=1e-12)
    assert 50 < near < 1000


@pytest.mark.parametrize(("name", "row"), CONTACTS)
def test_contacts_are_those_of_d4rls_own_rows(name, row):
    """Corners and faces: present MuJoCo's contacts alone would miss them by .01 to .05 m/s."""
    found = maze2d_ball.step(maze2d_ball.make_ball(point_maze(name)), row[:4], row[4:6])
    np.testing.assert_allclose(found, row[6:], rtol=0, atol=2e-5)


def test_a_ball_comes_to_rest_within_a_margin_of_the_wall():
    ball, state = maze2d_ball.make_ball(point_maze("umaze")), (1.0, 1.0, -5.0, 0.0)
    for _ in range(200):
        state = maze2d_ball.step(ball, state, (-1.0, 0.0))
    wall = 1 - BODY - 0.5 + maze2d_ball.RADIUS  # where a hard ball would stop
    assert abs(state[0] - wall) < 0.01 and abs(state[2]) < 1e-3 and state[1] == 1.0


# The planner and the controller


def value_iteration(free, goal):
    """D4RL's planner written out: the best of (stay, j - 1, j + 1, i - 1, i + 1) in each cell."""
    moves = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]
    reward, q = np.zeros(free.shape), np.zeros((5, *free.shape))
    reward[goal] = 1.0
    for _ in range(50):
        value, q = q.max(axis=0), np.empty_like(q)
        for a, move in enumerate(moves):
            to = np.roll(free, [-m for m in move], (0, 1)), np.roll(value, [-m for m in move], (0, 1))
            q[a] = reward + 0.99 * np.where(to[0], to[1], value)
    return q.argmax(axis=0), moves


@pytest.mark.parametrize("name", MAZES)
def test_a_route_is_greedy_for_fifty_sweeps_of_value_iteration(name):
    maze = point_maze(name)
    rng = np.random.default_rng(0)
    inner = [(i, j) for i in range(1, maze.free.shape[0] - 1) for j in range(1, maze.free.shape[1] - 1)]
    for goal in map(tuple, maze.free_cells[rng.permutation(len(maze.free_cells))[:12]].tolist()):
        best, moves = value_iteration(maze.free, goal)
        for start in inner:
            if not any(maze.free[start[0] + i, start[1] + j] for i, j in moves):
                continue  # a wall among walls: nothing comes there
            cell, cells = start, []
            while not cells or cell != goal:
                move = moves[best[cell]]
                cells.append(cell := (cell[0] + move[0], cell[1] + move[1]))
            assert route(maze, start, goal) == cells


def test_waypoints_lie_below_their_cells_and_the_last_is_the_integer():
    maze, rng = point_maze("large"), np.random.default_rng(0)
    uniform = iter(rng.random(1000).tolist())
    controller = WaypointController(maze, uniform)
    controller.act((1.0, 1.0, 0.0, 0.0), (7.06, 9.04))
    cells = np.array(route(maze, (1, 1), (7, 9)))
    below = cells - np.array(controller._waypoints)
    assert np.all((below[:-1] > 0) & (below[:-1] < 0.2)) and np.all(below[-1] == 0)
    first = np.array(controller._waypoints[0])
    action, solved = controller.act((1.02, 1.01, 0.3, -0.2), (7.06, 9.04))
    expected = np.clip(10 * (first - [1.02, 1.01]) - [0.3, -0.2], -1, 1)
    np.testing.assert_allclose(action, expected, rtol=1e-12)
    assert not solved


# The chain


def test_equal_seeds_give_equal_bits_and_a_longer_chain_begins_with_the_shorter():
    short, again = maze2d.collect("medium", 3, 700), maze2d.collect("medium", 3, 700)
    long, other = maze2d.collect("medium", 3, 17_000), maze2d.collect("medium", 4, 700)
    dense = maze2d.collect("medium", 3, 700, dense=True)
    for key, values in short.items():
        assert values.tobytes() == again[key].tobytes() == long[key][:700].tobytes()
        assert (values.tobytes() == dense[key].tobytes()) == (key != "rewards")
    assert np.all(short["actions"] != other["actions"], axis=1).mean() > 0.5


@pytest.mark.parametrize("name", MAZES)
def test_every_row_leads_to_the_next_one_along_the_planners_route(chains, name):
    errors, near = step_errors(chains[name], name)
    assert errors.max() < 1e-4 and near.sum() > 10
    followed, segments = routes_followed(chains[name], name)
    assert segments > 50 and followed >= 0.97 * segments


@pytest.mark.parametrize("name", MAZES)
def test_ends_are_at_the_integer_and_the_row_after_repeats_what_was_seen(chains, name):
    c, ends = chains[name], np.flatnonzero(chains[name]["timeouts"])
    assert not c["terminals"].any()
    stale = ends[ends < len(c["rewards"]) - 1] + 1
    np.testing.assert_array_equal(c["observations"][stale], c["observations"][stale - 1])
    state = np.concatenate([c["infos/qpos"], c["infos/qvel"]], axis=1)
    fresh = np.setdiff1d(np.arange(len(state)), stale)
    np.testing.assert_array_equal(c["observations"][fresh], state[fresh])
    assert np.any(state[stale] != c["observations"][stale], axis=1).all()  # the ball goes on
    cells = np.round(c["infos/goal"])
    assert np.abs(c["infos/goal"] - cells).max() <= 0.1
    assert np.linalg.norm(c["observations"][ends, :2] - cells[ends], axis=1).max() < 0.1
    changes = np.flatnonzero(np.any(np.diff(c["infos/goal"], axis=0) != 0, axis=1))
    np.testing.assert_array_equal(changes, stale - 1)
    one_row, again = np.diff(ends) == 1, np.all(cells[ends[1:]] == cells[ends[:-1]], axis=1)
    np.testing.assert_array_equal(one_row, again)


def test_a_segment_also_ends_after_the_time_limit(monkeypatch):
    monkeypatch.setitem(maze2d.TIME_LIMITS, "large", 30)
    ends = np.flatnonzero(maze2d.collect("large", 0, 2000)["timeouts"])
    assert np.diff(ends, prepend=-1).max() == 31  # the row of step 30 still counts


@pytest.mark.parametrize("name", MAZES)
def test_actions_are_the_controllers_plus_half_a_gaussian_clipped(chains, name):
    """At an end the controller aims at the integer, so its action is known."""
    c = chains[name]
    rows = np.flatnonzero(c["timeouts"])
    seen, goal = c["observations"][rows].astype(np.float64), np.round(c["infos/goal"][rows])
    mean = np.clip(10 * (goal - seen[:, :2]) - seen[:, 2:], -1, 1)
    for share, at in ((norm.cdf(-1, mean, 0.5), c["actions"][rows] == -1),
                      (norm.sf(0, mean, 0.5), c["actions"][rows] > 0)):  # fmt: skip
        spread = np.sqrt(np.sum(share * (1 - share)))
        assert abs(at.sum() - share.sum()) < 4 * spread
    exact = maze2d.collect(name, 7, 3000, variant=maze2d.Variant(noise=0.0))
    rows = np.flatnonzero(exact["timeouts"])
    seen, goal = exact["observations"][rows].astype(np.float64), np.round(exact["infos/goal"][rows])
    mean = np.clip(10 * (goal - seen[:, :2]) - seen[:, 2:], -1, 1)
    np.testing.assert_allclose(exact["actions"][rows], mean, atol=1e-5)


@pytest.mark.parametrize("name", MAZES)
def test_rewards_are_of_the_rows_own_place_and_the_fixed_goal(chains, name):
    rows = np.array([(*GOALS[name], 0, 0), (GOALS[name][0] + 0.5, GOALS[name][1], 3, 1)], np.float32)
    away = np.array([[0.5001, 0, 0, 0]], np.float32)
    near = maze2d.rewards(name, np.concatenate([rows, rows[:1] + away]))
    np.testing.assert_array_equal(near, [1, 1, 0])
    np.testing.assert_allclose(maze2d.rewards(name, rows, dense=True), np.exp([0, -0.5]), rtol=1e-6)
    c = chains[name]
    np.testing.assert_array_equal(c["rewards"], maze2d.rewards(name, c["observations"]))


# Held against D4RL's own rows


def test_distance_to_the_nearest_wall_is_that_of_the_nearest_box():
    maze, rng = point_maze("large"), np.random.default_rng(0)
    qpos = np.array(places("large", 50, rng)[0])
    walls = np.argwhere(~maze.free)
    outside_box = np.maximum(np.abs(qpos[:, None] + BODY - walls) - 0.5, 0)
    np.testing.assert_allclose(wall_distance(maze, qpos), np.linalg.norm(outside_box, axis=-1).min(axis=1))


@pytest.mark.parametrize("name", MAZES)
def test_a_chain_has_the_statistics_of_d4rls_rows_and_a_control_has_not(chains, name):
    proof = json.loads(PROOF.read_text())
    real = proof["real"][name]
    recorded = {key: Spread(*value) for key, value in proof["spreads"]["recipe"][name].items()}
    wide = {k: Spread(s.mean - 5 * s.std, s.mean + 5 * s.std, s.mean, s.std) for k, s in recorded.items()}
    assert not outside(statistics(chains[name], name), wide)
    assert not outside(real, wide)
    assert len(outside(real, recorded)) <= 1
    quiet = maze2d.collect(name, 7, 20_000, variant=maze2d.Variant(noise=0.0))
    assert {"saturated", "change", "top speed"} <= set(outside(statistics(quiet, name), wide))
    aimed = maze2d.collect(name, 7, 20_000, variant=maze2d.Variant(rounds=False))
    assert "end" in outside(statistics(aimed, name), wide)


def test_a_spread_holds_what_lies_between_its_quantiles():
    found = spreads([{"a": float(i), "b": 0.0} for i in range(1001)])
    assert found["a"] == pytest.approx((25, 975, 500, 288.96), rel=1e-3)
    assert outside({"a": 24.0, "b": 0.0}, found) == ["a"] and outside({"a": 975.0, "b": 1e-9}, found) == ["b"]


# Files and names


def test_a_recipe_is_loaded_under_its_true_name_and_made_once(cache):
    seen = []
    data = made(progress=lambda *a: seen.append(a))
    assert seen == [(500, 500)]
    assert data.origin.name == "maze2d-umaze-v1 (regenerated by D4RL's recipe, seed 0, 500 rows)"
    assert data.origin.kind == "recipe" and "not D4RL's file" in data.origin.notice
    assert "CC BY 4.0" in data.origin.licence and "noise 0.5" in data.origin.notice
    assert data.spec.env_id == "PointMaze_UMaze-v3" and data.spec.max_episode_steps == 300
    assert data.spec.score_range == names.reference_table()["maze2d-umaze-v1"].score_range
    np.testing.assert_array_equal(data.stops, [500])  # one ball, never put elsewhere
    again = made(progress=lambda *a: seen.append(a))
    assert len(seen) == 1 and again.origin == data.origin
    assert [p.name for p in cache.iterdir()] == [Path(data.origin.path).name]
    assert made("maze2d-umaze", seed=1).origin.name.endswith("seed 1, 500 rows)")
    assert len(list(cache.iterdir())) == 2


def test_the_same_recipe_and_seed_give_the_same_file(tmp_path, monkeypatch):
    found = set()
    for folder in ("a", "b"):
        monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / folder))
        found.add((made().origin.sha256, Path(made().origin.path).name))
    assert len(found) == 1


def test_the_official_number_of_rows_goes_unsaid(cache, monkeypatch):
    monkeypatch.setitem(maze2d.ROWS, "large", 300)
    name = jdp.data.load("maze2d-large-v1", source="recipe").origin.name
    assert name == "maze2d-large-v1 (regenerated by D4RL's recipe, seed 0)"


def test_a_file_that_is_not_the_recipes_is_one_line(cache):
    path = Path(made().origin.path)
    with h5py.File(path, "a") as file:
        del file["metadata/digest"]
        file["metadata/digest"] = "other"
    with pytest.raises(UserError, match="not the file that the recipe made; delete it") as changed:
        made()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"does not open as HDF5.*delete it") as cut:
        made()
    assert all("\n" not in str(e.value) and str(path) in str(e.value) for e in (changed, cut))


def test_mistakes_are_one_line(cache):
    cases = {
        "no recipe makes 'hopper-medium': there are maze2d-umaze-v1": {"name": "hopper-medium"},
        "rows must be at least 1": {"rows": 0},
        "0 rows of seed|-1": {"seed": -1},
    }
    for line, settings in cases.items():
        with pytest.raises(UserError, match=line) as error:
            made(**settings)
        assert "\n" not in str(error.value)
    cache.parent.joinpath("cache").write_text("a file")
    with pytest.raises(UserError, match="could not write") as error:
        made()
    assert "D4RL_DATASET_DIR" in str(error.value) and "\n" not in str(error.value)


def test_an_interrupted_recipe_leaves_nothing(cache):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(progress=stop)
    assert not list(cache.iterdir())


def test_auto_makes_what_cannot_be_downloaded_and_says_why(cache, monkeypatch):
    table = dict(names.reference_table())
    table["maze2d-umaze-v1"] = table["maze2d-umaze-v1"]._replace(url="http://127.0.0.1:9/x-sparse-v1.hdf5")
    monkeypatch.setattr(names, "reference_table", lambda: table)
    data = jdp.data.load("maze2d-umaze-v1", making=Making(rows=300))
    assert "regenerated" in data.origin.name and "no connection" in data.origin.notice
    with pytest.raises(UserError, match="no connection"):
        jdp.data.load("maze2d-umaze-v1", source="d4rl")
    (cache / "x-sparse-v1.hdf5").write_bytes(Path(data.origin.path).read_bytes())
    assert jdp.data.load("maze2d-umaze-v1").origin.name == "maze2d-umaze-v1 (D4RL)"  # D4RL's file comes first


def test_what_is_made_goes_to_minari_and_back(cache, tmp_path, monkeypatch):
    pytest.importorskip("gymnasium_robotics")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    data = made("maze2d-medium-dense-v1")
    rows = jdp.data.transitions(data)
    save_minari("jdp/test/maze2d-v0", rows, spec=data.spec, score_range=data.spec.score_range)
    back = jdp.data.load("jdp/test/maze2d-v0")
    for key in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(back, key), getattr(data, key)[:-1])
    assert asdict(back.spec) == asdict(data.spec)


def test_every_name_has_a_recipe_of_the_official_size():
    for name in maze2d.NAMES:
        recipe = recipes.find(name)
        assert recipe is not None and name in names.reference_table()
        assert recipe.rows == {"umaze": 1, "medium": 2, "large": 4}[name.split("-")[1]] * 1_000_000
        assert recipe.facts["time_limit"] == names.reference_table()[name].max_episode_steps
    digests = {recipes.path_of(found, 0, 10) for name in recipes.NAMES if (found := recipes.find(name))}
    assert len(digests) == len(recipes.NAMES) and recipes.find("maze2d-open-v0") is None
