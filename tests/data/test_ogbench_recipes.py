"""OGBench's datasets made again: what moves in them, the blocks they are made in, and their single tasks."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import jdp.data
from jdp.data import recipes
from jdp.data.export import save_minari
from jdp.data.recipes import Making, blocks, ogbench_mazes, ogbench_play
from jdp.data.recipes.ogbench_facts import statistics
from jdp.data.recipes.ogbench_mazes import NOISE, Walk, cells, opened_maze, stitched, vertices
from jdp.data.relabel import relabelled
from jdp.errors import UserError
from jdp.evaluation import make_env
from jdp.evaluation.statistics import welch
from jdp.tasks import Maze, maze_of
from jdp.tasks.mazes import steps_to

utils = pytest.importorskip("ogbench.utils")
MAZES = ("medium", "large", "giant", "teleport")
NAVIGATE, CUBE = "pointmaze-medium-navigate-v0", "cube-single-play-v0"


def maze(name) -> Maze:
    found = maze_of(f"pointmaze-{name}-v0")
    assert found is not None
    return found


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OGBENCH_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def navigate(tmp_path_factory):
    """A made file of two episodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OGBENCH_DATA_DIR", str(tmp_path_factory.mktemp("navigate")))
        return Path(jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=2000)).origin.path)


@pytest.fixture
def with_file(home, navigate):
    """The folder of datasets with a copy of that file."""
    home.mkdir()
    shutil.copy(navigate, home)
    return home


@pytest.fixture(scope="module")
def walks():
    """Rows of episodes by (maze, kind), and the maze."""
    found = {}
    for name, kind, episodes, steps in (
        ("medium", "navigate", 2, 500),
        ("teleport", "navigate", 3, 400),
        ("large", "stitch", 20, 40),
    ):
        walk = Walk(name, kind, steps)
        found[name] = [list(walk(3, number)) for number in range(episodes)]
    return found


def columns(rows, key):
    return np.array([getattr(row, key) for row in rows])


# What moves


@pytest.mark.parametrize("name", MAZES)
def test_goals_are_four_cells_away_and_vertices_are_no_corridors(name):
    found = maze(name)
    free = [tuple(cell) for cell in found.free_cells.tolist()]
    beside = np.array([[abs(a - c) + abs(b - d) == 1 for c, d in free] for a, b in free])
    reach = [np.linalg.matrix_power(beside + np.eye(len(free)), n) > 0 for n in (3, 4)]
    for i, start in enumerate(free):
        away = [free[j] for j in np.flatnonzero(reach[1][i] & ~reach[0][i])]
        assert stitched(found, start) == (away or [start])
    corridors = [
        cell
        for cell, near in zip(free, beside, strict=True)
        if near.sum() == 2 and np.ptp(np.array(free)[near], axis=0).max() == 2
    ]
    assert vertices(found) == [cell for cell in cells(found.free) if cell not in corridors]
    assert 0 < len(vertices(found)) < len(free)


@pytest.mark.parametrize("name", ["medium", "teleport", "large"])
def test_actions_are_the_direction_of_the_way_plus_half_a_gaussian_clipped(walks, name):
    found, rows = maze(name), [row for episode in walks[name] for row in episode]
    direction, action, qpos, goal = (columns(rows, key) for key in ("direction", "action", "qpos", "goal"))
    length = np.linalg.norm(direction, axis=1)
    assert np.all((np.abs(length - 1) < 1e-3) | (length == 0)) and (length == 0).mean() < 0.01
    for share, at in ((norm.cdf(-1, direction, NOISE), action == -1),
                      (norm.sf(1, direction, NOISE), action == 1),
                      (norm.sf(0, direction, NOISE), action > 0)):  # fmt: skip
        spread = np.sqrt(np.sum(share * (1 - share), axis=0))
        assert np.all(np.abs(at.sum(axis=0) - share.sum(axis=0)) < 4 * spread)
    assert np.abs(action).max() == 1
    for place, target, towards in zip(qpos[::7], goal[::7], direction[::7], strict=True):
        away = steps_to(found, tuple(found.xy_to_cell(target).tolist()))  # -1 where there is no way
        i, j = found.xy_to_cell(place).tolist()
        nearer = [n for n in ((i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)) if away[n] == away[i, j] - 1]
        ahead = found.cell_to_xy(nearer if away[i, j] > 0 else [(i, j)]) - place
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-6
        assert np.linalg.norm(ahead - towards, axis=1).min() < 1e-6


def test_a_new_goal_comes_at_success_and_stitched_goals_stay(walks):
    found = maze("medium")
    for rows in walks["medium"]:
        qpos, goal = columns(rows, "qpos"), columns(rows, "goal")
        reached = np.linalg.norm(qpos[1:] - goal[:-1], axis=1) <= 1
        changed = np.any(goal[1:] != goal[:-1], axis=1)
        np.testing.assert_array_equal(changed, reached)
        assert changed.sum() >= 2
        assert {tuple(cell) for cell in found.xy_to_cell(goal).tolist()} <= set(vertices(found))
        assert np.abs(goal - found.cell_to_xy(found.xy_to_cell(goal))).max() <= 1
    for rows in walks["large"]:
        goal, start = columns(rows, "goal"), columns(rows, "qpos")[0]
        assert np.all(goal == goal[0])
        way = len(maze("large").path(start, goal[0]))
        assert way == 4


def test_the_row_after_a_teleport_shows_the_place_before_it(walks):
    found, exits = maze("teleport"), []
    for rows in walks["teleport"]:
        seen, qpos = columns(rows, "observation"), columns(rows, "qpos")
        jumped = np.any(seen != qpos, axis=1)
        assert not jumped[0]
        entered = found.cell_to_xy([(4, 6), (5, 1)])
        away = np.linalg.norm(seen[jumped, None] - entered, axis=-1)
        assert np.all(away.min(axis=1) <= 1.5)
        exits += [tuple(cell) for cell in found.xy_to_cell(qpos[jumped]).tolist()]
    assert exits and set(exits) <= {(1, 7), (6, 1), (6, 10)}


@pytest.mark.parametrize(
    ("scene", "steps", "observed", "states"),
    [
        ("scene", 15, 40, 25),
        pytest.param("cube-single", 60, 28, 21, marks=pytest.mark.slow),
        pytest.param("cube-double", 60, 37, 28, marks=pytest.mark.slow),
        pytest.param("puzzle-3x3", 60, 55, 23, marks=pytest.mark.slow),
    ],
)
def test_an_episode_of_the_arm_does_not_depend_on_those_before(scene, steps, observed, states):
    episode = ogbench_play.opened_play(scene, steps)
    rows, other, again = episode(0, 5), episode(0, 6), episode(0, 5)
    assert {key: value.dtype for key, value in rows.items() if key == "button_states"} == (
        {} if scene.startswith("cube") else {"button_states": np.int64}
    )
    assert (rows["observations"].shape[1], rows["qpos"].shape[1]) == (observed, states)
    assert all(rows[key].tobytes() == again[key].tobytes() for key in rows)
    assert np.any(rows["actions"] != other["actions"], axis=1).all()
    np.testing.assert_array_equal(rows["observations"][:, :6], rows["qpos"][:, :6])  # of the same state
    assert np.abs(rows["actions"]).max() <= 1
    np.testing.assert_array_equal(rows["terminals"], np.arange(steps) == steps - 1)
    if scene == "puzzle-3x3":  # whose gripper stays closed, but for noise
        assert rows["observations"][20:, 17].min() / 3 > 0.7


def test_an_episode_out_of_sight_is_played_again(monkeypatch):
    scene, seen = ogbench_play.opened_play("scene", 3), []
    first = scene(1, 0)
    monkeypatch.setattr(ogbench_play, "healthy", lambda qpos: seen.append(qpos) or len(seen) == 3)
    third = scene(1, 0)
    np.testing.assert_array_equal(seen[0], first["qpos"])
    np.testing.assert_array_equal(seen[2], third["qpos"])
    assert not np.array_equal(seen[1][0], seen[0][0]) and len(seen) == 3


def test_which_states_are_out_of_sight():
    cube = {"in sight": (0.4, 0.2, 0.02), "drawer": (0.3, -0.35, 0.07), "right": (0.4, 0.29, 0.02),
            "left, low": (0.3, -0.31, 0.02), "left, high": (0.3, -0.31, 0.09)}  # fmt: skip
    found = {}
    for name, place in cube.items():
        qpos = np.zeros((3, 25))
        qpos[:, 14:17] = (0.4, 0.0, 0.02)
        qpos[1, 14:17] = place
        found[name] = ogbench_play.healthy(qpos)
    assert found == {"in sight": True, "drawer": True, "right": False, "left, low": False,
                     "left, high": False}  # fmt: skip


@pytest.mark.slow
def test_a_cube_is_stacked_with_a_probability_of_the_episode(monkeypatch):
    given, episode = [], ogbench_play.opened_play("cube-double", 40)
    kind = type(make_env("cube-double-v0", mode="data_collection").unwrapped)
    true = kind.set_new_target
    monkeypatch.setattr(
        kind, "set_new_target", lambda env, p_stack=None, **k: given.append(p_stack) or true(env, **k)
    )
    monkeypatch.setattr("ogbench.manipspace.oracles.plan.plan_oracle.PlanOracle.done", True)
    for number in range(3):
        episode(0, number)
    first, later = given[:: len(given) // 3], np.array([p for p in given if p is not None]).reshape(3, -1)
    assert first == [None] * 3  # the environment's own reset draws the first target, with .5
    assert np.ptp(later, axis=1).max() == 0 and len(set(later[:, 0])) == 3
    assert later.min() >= 0 and later.max() <= 0.25


@pytest.mark.slow
def test_statistics_tell_another_noise_apart(monkeypatch):
    name, found = "pointmaze-medium-stitch-v0", {}
    for key, noise, seed in (("recipe", NOISE, 0), ("again", NOISE, 1), ("less", 0.3, 1)):
        monkeypatch.setattr(ogbench_mazes, "NOISE", noise)
        episode = opened_maze("medium", "stitch", 100)
        made = [episode(seed, number) for number in range(20)]
        found[key] = statistics({k: np.concatenate([rows[k] for rows in made]) for k in made[0]}, name)
    assert {len(values) for values in found["recipe"].values()} == {20}
    assert welch(found["recipe"]["saturated"], found["less"]["saturated"]) < 1e-6
    assert min(welch(found["recipe"][k], found["again"][k]) for k in ("saturated", "change", "speed")) > 0.01


# Blocks


def opened(log, name="medium"):
    """Makes episodes, and writes down which."""
    walk = Walk(name, "navigate", 30)

    def episode(seed, number):
        log.append(number)
        rows = list(walk(seed, number))
        return {"observations": columns(rows, "observation"), "terminals": np.arange(30) == 29}

    return lambda: episode


def test_a_making_that_was_killed_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 60)  # rows: blocks of two episodes
    log, seen = [], []
    plan = blocks.Plan(opened(log), 4, 10, 7, 30)
    blocks.write(tmp_path / "whole.npz", plan, {"seed": 4}, progress=seen.append)
    assert log == list(range(10, 17)) and seen == list(range(30, 211, 30))
    log.clear()

    def stop(rows):
        if rows == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blocks.write(tmp_path / "cut.npz", plan, {"seed": 4}, progress=stop)
    assert not (tmp_path / "cut.npz").exists() and log == [10, 11, 12, 13, 14]
    log.clear()
    seen.clear()
    blocks.write(tmp_path / "cut.npz", plan, {"seed": 4}, progress=seen.append)
    assert log == [14, 15, 16] and seen == [120, 150, 180, 210]  # one block was lost
    assert (tmp_path / "cut.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"cut.npz", "whole.npz"}
    single = opened(log)()(4, 12)
    with np.load(tmp_path / "whole.npz") as file:
        np.testing.assert_array_equal(file["observations"][60:90], single["observations"])


def test_who_comes_second_waits_and_makes_nothing(tmp_path):
    started, go, log, seen = threading.Event(), threading.Event(), [], []
    episode = opened(log)()

    def slow():
        def wait(seed, number):
            started.set()
            assert go.wait(60)
            return episode(seed, number)

        return wait

    def never():
        raise AssertionError("it is made already")

    path = tmp_path / "a.npz"
    first = threading.Thread(target=blocks.write, args=(path, blocks.Plan(slow, 0, 0, 2, 30), {}))
    first.start()
    assert started.wait(60)
    threading.Timer(0.2, go.set).start()
    blocks.write(path, blocks.Plan(never, 0, 0, 2, 30), {}, progress=seen.append)
    first.join()
    assert log == [0, 1] and path.is_file() and seen[0] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_a_broken_block_is_one_line(tmp_path):
    plan = blocks.Plan(opened([]), 0, 0, 2, 30)
    folder = tmp_path / "a.npz.blocks"
    folder.mkdir()
    (folder / "0000000-0000002.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"0000000-0000002.npz is broken .* delete it") as error:
        blocks.write(tmp_path / "a.npz", plan, {})
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAVIGATE, "puzzle-3x3-play-v0"])
def test_any_number_of_processes_makes_the_same_bytes(tmp_path, monkeypatch, name):
    monkeypatch.setattr(blocks, "_BLOCK", 1001)
    found = set()
    for processes in (1, 2, 3):
        monkeypatch.setenv("OGBENCH_DATA_DIR", str(tmp_path / str(processes)))
        making = Making(rows=4004 if name == NAVIGATE else 2002, processes=processes)
        found.add(jdp.data.load(name, source="recipe", making=making).origin.sha256)
    assert len(found) == 1


# Files and names


def test_a_made_file_is_what_ogbench_reads_and_never_passes_as_its_own(with_file, navigate):
    home, path = with_file, with_file / navigate.name
    data = jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=2000))
    assert data.origin.name == f"{NAVIGATE} (regenerated by OGBench's recipe, seed 0, 2,002 rows)"
    assert data.origin.kind == "recipe" and "not OGBench's file" in data.origin.notice
    assert "MIT" in data.origin.licence and "CC BY 4.0" in data.origin.licence
    assert data.spec.env_id == NAVIGATE and data.spec.goal == (0, 1) and data.spec.max_episode_steps == 1000
    assert data.origin.path == str(path)
    theirs = utils.load_dataset(str(path), add_info=True)
    for key in ("observations", "actions", "next_observations"):
        np.testing.assert_array_equal(getattr(data, key), theirs[key], err_msg=key)
    np.testing.assert_array_equal(data.timeouts, theirs["terminals"].astype(bool))
    assert theirs["qpos"].shape == (2000, 2) and theirs["qpos"].dtype == np.float32
    np.testing.assert_array_equal(data.lengths, [1000, 1000])
    again = jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=2002))
    assert again.origin == data.origin and [p.name for p in home.iterdir()] == [path.name]
    with pytest.raises(UserError, match=r"no file .*/pointmaze-medium-navigate-v0.npz: fetch .*recipe"):
        jdp.data.load(NAVIGATE)
    shutil.copy(path, home / f"{NAVIGATE}.npz")
    assert "recipe, seed 0: not OGBench's own file" in jdp.data.load(NAVIGATE).origin.notice
    by_path = jdp.data.load(str(path))
    assert by_path.spec == data.spec and by_path.origin.name == f"{path.name} (file)"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"does not open as npz.*delete it"):
        jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=2000))


def test_the_validation_part_is_a_tenth_of_episodes_that_follow(home):
    name, making = "pointmaze-large-stitch-v0", Making(seed=3, rows=2010)
    training = jdp.data.load(name, source="recipe", making=making)
    part = jdp.data.load(f"{name}-val", source="recipe", making=making)
    episode = opened_maze("large", "stitch", 201)
    np.testing.assert_array_equal(training.observations[:200], episode(3, 0)["observations"][:200])
    np.testing.assert_array_equal(part.observations, episode(3, 10)["observations"][:200])
    assert part.spec == training.spec and len(part) == 200
    one, other = Path(training.origin.path), Path(part.origin.path)
    assert other.name == one.name.replace(".npz", "-val.npz")  # the pair that ogbench loads
    _, theirs, val = utils.make_env_and_datasets(name, dataset_path=str(one))
    np.testing.assert_array_equal(theirs["observations"], training.observations)
    np.testing.assert_array_equal(val["observations"], part.observations)


def test_what_is_made_goes_to_minari_and_back(with_file, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    data = jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=2000))
    save_minari("jdp/test/navigate-v0", jdp.data.transitions(data), spec=data.spec)
    back = jdp.data.load("jdp/test/navigate-v0")
    for key in ("observations", "actions", "next_observations", "timeouts"):
        np.testing.assert_array_equal(getattr(back, key), getattr(data, key))
    assert back.spec == replace(data.spec, env_id="pointmaze-medium-v0")  # what Gymnasium calls it


def test_every_name_has_the_official_size():
    sizes = {}
    for name in recipes.ogbench.NAMES:
        training, part = recipes.find(name), recipes.find(f"{name}-val")
        assert training is not None and part is not None
        assert part.rows == part.file_rows(None) == training.rows // 10 == training.file_rows(None) // 10
        assert part.training_rows(None) == training.rows
        sizes[name] = training.rows
    assert sizes["pointmaze-giant-navigate-v0"] == 500 * 2001
    assert {n for n, rows in sizes.items() if rows == 5000 * 201} == {n for n in sizes if "stitch" in n}
    assert {rows for n, rows in sizes.items() if "stitch" not in n and "giant" not in n} == {1000 * 1001}
    assert len(sizes) == 12


def test_mistakes_are_one_line(home):
    cases: dict[str, tuple[str, Making]] = {
        "no recipe makes 'antmaze-large-navigate-v0'": ("antmaze-large-navigate-v0", Making()),
        "no recipe makes 'cube-single-play-singletask-task9-v0'": (
            "cube-single-play-singletask-task9-v0", Making()),
        "rows must be at least 1": (NAVIGATE, Making(rows=0)),
        "0 processes": (NAVIGATE, Making(processes=0)),
        "ask for 10010 rows or more": (f"{NAVIGATE}-val", Making(rows=5000)),
    }  # fmt: skip
    for line, (name, making) in cases.items():
        with pytest.raises(UserError, match=line) as error:
            jdp.data.load(name, source="recipe", making=making)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"unknown .*singletask-task9-v0.*mean cube-single-play-singletask"):
        jdp.data.load("cube-single-play-singletask-task9-v0")
    with pytest.raises(UserError, match="OGBench has no dataset"):
        jdp.data.load("hopper-medium", source="ogbench")
    home.write_text("a file")
    with pytest.raises(UserError, match=r"could not write .*OGBENCH_DATA_DIR"):
        jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=10))


def test_a_missing_package_is_named_with_its_extra(home, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(UserError, match=r'pip install "jdp\[ogbench\]"'):
        jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=10))


# Single tasks


def test_a_single_task_of_a_maze_has_the_rewards_of_being_at_its_goal(with_file):
    home, name = with_file, "pointmaze-medium-navigate-singletask-task4-v0"
    data = jdp.data.load(name, source="recipe", making=Making(rows=2000))
    plain = jdp.data.load(NAVIGATE, source="recipe", making=Making(rows=2000))
    assert data.origin.name.startswith(f"{name} (regenerated") and data.origin.path == plain.origin.path
    np.testing.assert_array_equal(data.observations, plain.observations)
    there = np.linalg.norm(data.observations - maze("medium").cell_to_xy((6, 1)), axis=1) <= 1
    assert 0 < there.mean() < 0.2
    np.testing.assert_array_equal(data.rewards, there - 1.0)
    np.testing.assert_array_equal(data.terminals, there)
    assert data.spec.env_id == name and data.spec.goal == ()
    shutil.copy(data.origin.path, home / f"{NAVIGATE}.npz")  # as an official file lies there
    official = jdp.data.load(name)
    assert official.origin.name == f"{name} (OGBench)"
    np.testing.assert_array_equal(official.rewards, data.rewards)
    one = jdp.data.load("pointmaze-medium-navigate-singletask-v0")  # the default, task 1
    at = np.linalg.norm(one.observations - maze("medium").cell_to_xy((6, 6)), axis=1) <= 1
    np.testing.assert_array_equal(one.rewards, at - 1.0)


def near(rng, target, width, count=400):
    """`[count, width]`, about half of them within .04 of `target`."""
    away = rng.normal(size=(count, width))
    away *= rng.uniform(0, 0.08, (count, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    return target + away


def goals(name, task):
    env = make_env(name)
    found = env.unwrapped.task_infos[task - 1]  # type: ignore[attr-defined]
    env.close()
    return found


def test_single_tasks_of_the_scene_count_what_is_not_in_place():
    rng, goal = np.random.default_rng(0), goals("scene-v0", 2)["goal"]  # the default task
    qpos, buttons = rng.normal(size=(400, 25)), rng.integers(0, 2, (400, 2))
    qpos[:, 14:17] = near(rng, goal["block_xyzs"][0], 3)
    qpos[:, [23]], qpos[:, [24]] = near(rng, goal["drawer_pos"], 1), near(rng, goal["window_pos"], 1)
    placed = [
        np.linalg.norm(qpos[:, 14:17] - goal["block_xyzs"][0], axis=1) <= 0.04,
        *(buttons == goal["button_states"]).T,
        np.abs(qpos[:, 23] - goal["drawer_pos"]) <= 0.04,
        np.abs(qpos[:, 24] - goal["window_pos"]) <= 0.04,
    ]
    found = relabelled("scene-play-singletask-v0", {"qpos": qpos, "button_states": buttons}, "here")
    np.testing.assert_array_equal(found["rewards"], np.sum(placed, axis=0) - 5.0)
    np.testing.assert_array_equal(found["masks"], ~np.all(placed, axis=0))
    assert set(found["rewards"]) == {-5, -4, -3, -2, -1, 0}


@pytest.mark.parametrize(
    ("name", "task"), [("cube-single", 2), pytest.param("cube-double", 1, marks=pytest.mark.slow)]
)
def test_single_tasks_of_cubes_count_those_that_are_not_in_place(name, task):
    rng, places = np.random.default_rng(0), goals(f"{name}-v0", task)["goal_xyzs"]
    qpos = rng.normal(size=(400, 14 + 7 * len(places)))
    parts = [slice(14 + 7 * i, 17 + 7 * i) for i in range(len(places))]
    for part, place in zip(parts, places, strict=True):
        qpos[:, part] = near(rng, place, 3)
    away = [np.linalg.norm(qpos[:, part] - place, axis=1) for part, place in zip(parts, places, strict=True)]
    placed = np.array(away) <= 0.04
    found = relabelled(f"{name}-play-singletask-task{task}-v0", {"qpos": qpos}, "here")
    np.testing.assert_array_equal(found["rewards"], np.sum(placed, axis=0) - float(len(places)))
    np.testing.assert_array_equal(found["masks"], ~np.all(placed, axis=0))
    assert set(found["rewards"]) == {-n for n in range(len(places) + 1)}


def test_relabelling_mistakes_are_one_line():
    for line, name, arrays in (
        ("here: no key 'qpos', which rewards of cube-single", "cube-single-play-singletask-v0", {}),
        ("no key 'button_states'", "puzzle-3x3-play-singletask-v0", {"qpos": np.zeros((2, 23))}),
        ("its states are not those of", "cube-single-play-singletask-v0", {"qpos": np.zeros((2, 9))}),
    ):
        with pytest.raises(UserError, match=line) as error:
            relabelled(name, arrays, "here")
        assert "\n" not in str(error.value)
