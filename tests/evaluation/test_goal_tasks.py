"""Goal tasks behind one interface, D4RL's maze2d evaluation, and what is said where a package is missing."""

import sys
from dataclasses import replace

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.envs.registration import WrapperSpec

from jdp.errors import UserError
from jdp.evaluation import (
    behaviour_score,
    check_task,
    environment_maker,
    is_success,
    last_scores,
    learning_curve,
    make_env,
    make_goal_env,
    protocol,
    score_name,
    success_interval,
)
from jdp.runs.models import stand_in
from jdp.tasks import maze2d, maze2d_ball, maze_of, point_maze
from jdp.tasks.collect import Route, advance, steer
from jdp.types import Spec

pytest.importorskip("gymnasium_robotics")


def drive(env, seed, **points):
    """All `Step`s of an episode of the waypoint controller in PointMaze."""
    maze = maze_of(env.env_id)
    state, goal = env.reset(seed, **points)
    route, steps = Route(maze.path(state[:2], goal)), []
    while not steps or not (steps[-1].terminated or steps[-1].truncated):
        steps.append(env.step(steer(state[:2], state[2:], route.waypoints[route.index])))
        state = steps[-1].observation
        route = advance(route, state[:2])
    return steps


def test_agents_play_mazes_with_one_fixed_goal_alone():
    free = Spec(4, 2, "PointMaze_UMaze-v3", goal=(0, 1))
    with pytest.raises(UserError, match="has goals, of which agents know nothing"):
        check_task(stand_in(free), goals=False)
    walk = stand_in(replace(free, score_range=(23.85, 161.86)))
    check_task(walk, goals=False)
    assert behaviour_score(walk) is None  # one long walk, which no score compares with


def test_an_episode_of_point_maze_ends_at_success():
    env = make_goal_env("PointMaze_Medium-v3")
    assert (env.observation_dim, env.action_dim, env.goal_dim, env.max_episode_steps) == (4, 2, 2, 600)
    for seed in range(3):
        steps = drive(env, seed)
        assert steps[-1].success and steps[-1].terminated and steps[-1].reward == 1
        distance = [np.linalg.norm(s.observation[:2] - s.goal) for s in steps]
        np.testing.assert_array_equal([s.success for s in steps], np.array(distance) <= 0.45)
        np.testing.assert_array_equal([s.goal for s in steps], [steps[0].goal] * len(steps))
    short = make_goal_env("PointMaze_Medium-v3", max_episode_steps=5)
    short.reset(0)
    assert [short.step(np.zeros(2)).truncated for _ in range(5)] == [False] * 4 + [True]


def test_multi2d_is_the_maze2d_protocol_with_a_goal_for_each_episode():
    one, many = (make_goal_env("maze2d-large-v1", task=task) for task in (None, "multi2d"))
    goals, maze = [], maze_of("PointMaze_Large-v3")
    for seed in range(40):
        (start, _), (same, goal) = one.reset(seed), many.reset(seed)
        np.testing.assert_array_equal(start, same)
        cell = maze2d.to_point_maze(maze, maze.free_cells.astype(float))
        assert np.abs(cell - goal).max(axis=1).min() <= maze2d.START_NOISE + 1e-6
        goals.append(goal)
    assert len(np.unique(goals, axis=0)) == 40 and np.ptp(goals, axis=0).min() > 5
    body = many.env.unwrapped.point_env
    body.set_state(goals[-1] + np.array([0.3, 0]), np.zeros(2))
    step = many.step(np.zeros(2))
    assert step.reward == 1 and not step.terminated and step.success
    np.testing.assert_array_equal(step.goal, goals[-1])


@pytest.mark.parametrize("name", maze2d.GOALS)
def test_the_maze2d_protocol_counts_the_steps_at_one_fixed_goal(name):
    env = make_goal_env(f"maze2d-{name}-v1")
    limit = {"umaze": 300, "medium": 600, "large": 800}[name]
    steps = drive(env, 5)
    assert len(steps) == limit == env.max_episode_steps and steps[-1].truncated
    assert not any(s.terminated for s in steps)
    distance = np.array([np.linalg.norm(s.observation[:2] - maze2d.goal(name)) for s in steps])
    clear = np.abs(distance - 0.5) > 1e-5
    reward = np.array([s.reward for s in steps])
    np.testing.assert_array_equal(reward[clear], distance[clear] <= 0.5)
    assert reward.sum() > 0.2 * limit and [s.success for s in steps] == (reward == 1).tolist()
    for s in steps[:: limit // 3]:
        np.testing.assert_allclose(s.goal, maze2d.goal(name), rtol=1e-6)
    starts = np.stack([env.reset(seed)[0] for seed in range(200)])
    maze = maze_of(env.env_id)
    assert maze is not None
    inside = maze.cell_to_xy(maze.xy_to_cell(starts[:, :2])) - starts[:, :2]
    np.testing.assert_allclose(np.abs(inside - inside.mean(0)).max(), 0.1, atol=0.01)
    assert np.abs(starts[:, 2:].std() - 0.1) < 0.02


def test_the_walls_of_the_maze2d_protocol_are_d4rls():
    """A step from there is that of the ball that is held against D4RL's files; PointMaze's own is not."""
    maze, rng = point_maze("umaze"), np.random.default_rng(0)
    ball, apart = maze2d_ball.make_ball(maze), {}
    for name, options in {"maze2d-umaze-v1": {}, "PointMaze_UMaze-v3": {"task": None}}.items():
        env = make_goal_env(name, **options)
        env.reset(0)
        point, gaps = env.env.unwrapped.point_env, []
        for side in np.repeat((-1, 1), 40):  # at the walls that cell (1, 1) has in the west and in the north
            wall = 1 - maze2d.BODY - 0.5 + maze2d_ball.RADIUS
            qpos = np.array([wall, 1 - maze2d.BODY])[::side] + rng.uniform(-0.01, 0.004, 2)
            qvel, action = rng.uniform(-3, 3, 2), rng.uniform(-1, 1, 2)
            point.set_state(maze2d.to_point_maze(maze, qpos), maze2d.turn(qvel))
            found = env.step(maze2d.turn(action)).observation
            after = maze2d_ball.contact_step(ball, (*qpos, *qvel), tuple(action))
            expected = [*maze2d.to_point_maze(maze, np.array(after[:2])), *maze2d.turn(np.array(after[2:]))]
            gaps.append(np.abs(found - expected).max())
        apart[name] = np.array(gaps)
        env.close()
    assert apart["maze2d-umaze-v1"].max() < 1e-5 and np.mean(apart["PointMaze_UMaze-v3"] > 0.01) > 0.25


def test_which_protocol_a_score_range_means():
    spec = Spec(4, 2, "PointMaze_Large-v3", 800, (6.7, 273.99), (0, 1))
    assert protocol(spec) == "maze2d"
    assert protocol(Spec(4, 2, "PointMaze_Large-v3", goal=(0, 1))) is None
    assert protocol(Spec(11, 3, "Hopper-v5", score_range=(0.0, 1.0))) is None


def test_given_starts_and_goals_are_taken_or_refused_with_one_line():
    env = make_goal_env("PointMaze_UMaze-v3")
    maze = maze_of("PointMaze_UMaze-v3")
    assert maze is not None
    for start in maze.free_cells:
        state, goal = env.reset(0, start=maze.cell_to_xy(start), goal=(-1.0, -1.0))
        np.testing.assert_allclose(state, [*maze.cell_to_xy(start), 0, 0], atol=1e-6)
        np.testing.assert_array_equal(goal, [-1, -1])
    steps = drive(env, 0, start=(-1.0, 1.0), goal=(-1.2, -1.2))
    assert steps[-1].success and np.linalg.norm(steps[-1].observation[:2] + 1.2) <= 0.45
    for points, words in (
        ({"goal": (0.0, 0.0)}, "the goal .* lies in a wall"),
        ({"goal": (7.0, 0.0)}, "the goal .* outside the maze"),
        ({"start": (-1.49, 1.0)}, "the start .* lies in a wall|nearest"),
        ({"start": (1.0, np.nan)}, "two numbers"),
    ):
        with pytest.raises(UserError, match=words) as error:
            env.reset(0, **points)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="takes no goal"):
        make_goal_env("Hopper-v5").reset(0, goal=(0.0, 0.0))


@pytest.mark.parametrize(
    ("env_id", "observation_dim", "goal_dim"),
    [
        ("PointMaze_Large_Diverse_GR-v3", 4, 2),
        ("AntMaze_UMaze-v4", 29, 2),
        ("AntMaze_UMaze-v5", 107, 2),
        ("pointmaze-medium-navigate-v0", 2, 2),
        ("antmaze-medium-navigate-v0", 29, 2),
        ("antsoccer-arena-navigate-v0", 42, 2),
        ("Hopper-v5", 11, 0),
    ],
)
def test_same_seed_same_episode_in_fresh_environments(env_id, observation_dim, goal_dim):
    if "_" not in env_id and env_id != "Hopper-v5":
        pytest.importorskip("ogbench")
    found = []
    for seed, noise in ((7, 1), (7, 2), (8, 3)):
        np.random.seed(noise)  # OGBench draws from it, and must not
        before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
        env = make_goal_env(env_id)
        observation, goal = env.reset(seed)
        rows = [(observation, goal)]
        for _ in range(3):
            step = env.step(np.full(env.action_dim, 0.5))
            assert not step.success
            rows.append((step.observation, step.goal))
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]
        found.append([np.concatenate(row) for row in rows])
        assert observation.shape == (observation_dim,) == (env.observation_dim,)
        assert goal.shape == (goal_dim,) == (env.goal_dim,) and observation.dtype == np.float32
        env.close()
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    "spec",
    [
        Spec(4, 2, "PointMaze_UMaze-v3"),
        Spec(4, 2, "PointMaze_Medium-v3", score_range=(0.0, 1.0)),
        *(Spec(1, 5, f"{name}-v0") for name in ("cube-single", "scene", "puzzle-3x3")),
    ],
    ids=lambda spec: spec.env_id,
)
def test_an_environment_that_is_used_again_has_the_episodes_of_a_fresh_one(spec):
    if spec.action_dim == 5:
        pytest.importorskip("ogbench")

    def episode(env, seed):
        actions = np.random.default_rng(seed).uniform(-1, 1, (40, env.action_dim))
        return [env.reset(seed), *(env.step(action) for action in actions)]

    make = environment_maker(spec)
    used = make()
    for seed in (1, 2):
        episode(used, seed)
    used.close()
    used.close()
    again, fresh = make(), make()
    assert again is used and fresh is not used
    jax.tree.map(np.testing.assert_array_equal, episode(again, 3), episode(fresh, 3))


def test_tasks_quick_to_make_and_tasks_with_a_datasets_wrappers_are_made_anew():
    inner = gym.spec("PointMaze_UMaze-v3")
    wrapper = WrapperSpec("NormalizeReward", "gymnasium.wrappers:NormalizeReward", {})
    for spec in (
        Spec(11, 3, "Hopper-v5"),
        Spec(4, 2, inner.id, env_spec=replace(inner, additional_wrappers=(wrapper,)).to_json()),
    ):
        make = environment_maker(spec)
        one = make()
        one.close()
        assert make() is not one


def test_ant_maze_observations_begin_with_the_position():
    env = make_goal_env("AntMaze_UMaze-v4")
    state, goal = env.reset(0, start=(-4.0, 4.0), goal=(4.0, -4.0))
    inner = env.env.unwrapped.ant_env.data  # type: ignore[attr-defined]
    np.testing.assert_allclose(state, np.concatenate([inner.qpos, inner.qvel]), atol=1e-6)
    np.testing.assert_allclose(state[:2], [-4, 4])
    np.testing.assert_array_equal(goal, [4, -4])
    maze = maze_of("AntMaze_UMaze-v4")
    assert maze is not None and maze.is_free(state[:2]) and not maze.is_free((0.0, 0.0))


def test_ogbench_tasks_are_its_own():
    pytest.importorskip("ogbench")
    env = make_goal_env("pointmaze-large-navigate-v0", task=3)
    maze = maze_of("pointmaze-large-v0")
    assert maze is not None
    for seed in range(3):
        state, goal = env.reset(seed)
        info = env.env.unwrapped.task_infos[2]  # type: ignore[attr-defined]
        assert tuple(maze.xy_to_cell(state)) == info["init_ij"]
        assert tuple(maze.xy_to_cell(goal)) == info["goal_ij"]
        np.testing.assert_allclose(goal, env.env.unwrapped.cur_goal_xy, rtol=1e-6)  # type: ignore[attr-defined]
    each = make_goal_env("pointmaze-large-navigate-v0")
    turns = [(each.reset(seed), each.env.unwrapped.cur_task_id)[1] for seed in range(7, 12)]  # type: ignore[attr-defined]
    assert turns == [3, 4, 5, 1, 2]
    state, goal = env.reset(0, start=(0.0, 0.0), goal=(0.5, 4.0))
    np.testing.assert_array_equal(np.stack([state, goal]), [[0, 0], [0.5, 4.0]])
    steps = [env.step([0.0, 1.0]) for _ in range(20)]
    ended = [s.success for s in steps].index(True)
    assert steps[ended].terminated and steps[ended].reward == 1
    np.testing.assert_array_equal(steps[ended].goal, goal)
    with pytest.raises(UserError, match="one of 1 to 5"):
        make_goal_env("pointmaze-large-v0", task=9)


@pytest.mark.parametrize(
    ("name", "task", "width"),
    [("pointmaze-medium-stitch-singletask-v0", 1, 2), ("cube-single-play-singletask-v0", 2, 28)],
)
def test_a_single_task_of_ogbench_has_no_goal_and_ends_at_success(name, task, width):
    """`-singletask-v0` is the default task. OGBench tells the success of the state before the action."""
    pytest.importorskip("ogbench")
    env = make_goal_env(name)
    state, goal = env.reset(0)
    inner = env.env.unwrapped
    assert inner.cur_task_id == task and (state.shape, goal.shape, env.goal_dim) == ((width,), (0,), 0)  # type: ignore[attr-defined]
    spec = Spec(width, env.action_dim, name)
    assert is_success(spec) and score_name(spec) == "success %"
    if env.maze is not None:
        inner.set_xy(np.add(inner.cur_goal_xy, (0.6, 0.0)))  # type: ignore[attr-defined]
        step = env.step(np.array([1.0, 0.0]))
        assert step.success and step.terminated and step.reward == 0
        assert env.step(np.zeros(env.action_dim)).success
        env.reset(0)
    step = env.step(np.zeros(env.action_dim))
    assert not step.success and not step.terminated and step.reward == -1
    with pytest.raises(UserError, match="one single task already"):
        make_goal_env(name, task=3)


def test_success_of_single_tasks_is_the_score_of_agents():
    spec = Spec(2, 2, "pointmaze-large-navigate-singletask-task3-v0")
    record = {"step": 5, "returns": [[-9.0, -200.0], [-7.0, -3.0]], "success": [[1, 0], [1, 1]]}
    found = last_scores([record], spec, 5)
    assert found["seeds"] == [50, 100] and found["success"] == record["success"]
    np.testing.assert_allclose(found["interval"], success_interval(np.array(record["success"], bool)))
    np.testing.assert_array_equal(learning_curve([record], spec)[1], [[50, 100]])
    returns = last_scores([record], Spec(2, 2, "Hopper-v5"), 5)
    assert returns["seeds"] == [-104.5, -5] and "success" not in returns


def test_actions_are_clipped_and_plain_tasks_have_no_goal():
    one, other = make_goal_env("Hopper-v5"), make_env("Hopper-v5")
    state, goal = one.reset(3)
    np.testing.assert_array_equal(state, other.reset(seed=3)[0].astype(np.float32))
    step = one.step([5.0, -5.0, 0.0])
    expected = other.step(np.array([1.0, -1.0, 0.0], np.float32))
    np.testing.assert_array_equal(step.observation, expected[0].astype(np.float32))
    assert step.reward == pytest.approx(expected[1]) and not step.success and goal.size == step.goal.size == 0


@pytest.mark.parametrize(
    ("env_id", "options", "words"),
    [
        (None, {}, "names no simulator"),
        ("PointMaze_Lrge-v3", {}, "PointMaze_Large"),
        ("PointMaze_Open-v3", {"task": "maze2d"}, "PointMaze_UMaze-v3, _Medium-v3 and _Large-v3"),
        ("Hopper-v5", {"task": 1}, "has no task 1"),
        ("visual-antmaze-medium-navigate-v0", {}, "pictures"),
        ("CartPole-v1", {}, "not vectors"),
    ],
)
def test_mistakes_get_one_line(env_id, options, words):
    with pytest.raises(UserError, match=words) as error:
        make_goal_env(env_id, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [
        ("PointMaze_Large-v3", "gymnasium_robotics", "robotics"),
        ("FrankaKitchen-v1", "gymnasium_robotics", "kitchen"),
        ("pointmaze-large-navigate-v0", "ogbench", "ogbench"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, env_id, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'pip install "jdp\[{extra}\]"') as error:
        make_goal_env(env_id)
    assert "\n" not in str(error.value)


def test_kitchen_runs_or_says_which_mujoco_it_needs():
    import mujoco

    version = tuple(int(x) for x in mujoco.__version__.split(".")[:2])
    if version >= (3, 12):
        with pytest.raises(UserError, match=r'pip install "jdp\[kitchen\]"'):
            make_goal_env("FrankaKitchen-v1")
    else:
        env = make_goal_env("FrankaKitchen-v1")
        assert (env.observation_dim, env.goal_dim, env.max_episode_steps) == (59, 0, 280)
