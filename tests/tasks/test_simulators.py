"""Simulators in JAX against the simulators that they stand for, step by step, and how many run at once."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.evaluation import make_goal_env
from jdp.tasks import maze2d, maze2d_ball, point_maze, simulators
from jdp.tasks.simulators import advance, begin, double_integrator_task, simulator
from jdp.tasks.simulators.double_integrator import Square, clearance
from jdp.tasks.simulators.point_maze import D4RL_WALLS, Walls, ball_step, grid_of
from jdp.types import Stepped

KEY = jax.random.key(0)


def steps(maze, walls):
    return jax.jit(jax.vmap(lambda p, v, a: ball_step(p, v, a, grid=grid_of(maze), walls=walls)))


def places(maze, count, rng):
    """States of the ball in all free cells, many of them at walls, and actions."""
    cells = maze.free_cells[rng.integers(len(maze.free_cells), size=count)]
    xy = maze.cell_to_xy(cells) + rng.uniform(-0.415, 0.415, (count, 2))
    return (
        x.astype(np.float32) for x in (xy, rng.uniform(-6, 6, (count, 2)), rng.uniform(-1, 1, (count, 2)))
    )


@pytest.mark.parametrize("name", ["umaze", "medium"])
def test_a_step_in_a_point_maze_is_mujocos_also_at_walls(name):
    pytest.importorskip("gymnasium_robotics")
    maze, env = point_maze(name), make_goal_env(simulators.point_maze_task(name).spec.env_id)
    xy, velocity, action = places(maze, 1500, np.random.default_rng(0))
    found = np.concatenate(steps(maze, Walls())(xy, velocity, action), axis=1)
    inner, expected, contacts = env.env.unwrapped.point_env, [], []
    for p, v, a in zip(xy, velocity, action, strict=True):
        inner.set_state(p.astype(float), v.astype(float))
        expected.append(inner.step(a.astype(float))[0])
        contacts.append(inner.data.ncon - 1)  # one is the floor's
    assert np.bincount(contacts)[:2].min() > 50 and max(contacts) >= 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_thousand_random_steps_away_from_walls_are_mujocos():
    """Random pushes, and a spring that keeps the ball in the middle: errors of float32 do not add up."""
    pytest.importorskip("gymnasium_robotics")
    task, env = simulators.point_maze_task("open"), make_goal_env("PointMaze_Open-v3")
    noise = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype(np.float32).repeat(10, axis=0)
    state = task.reset(KEY)[0]._replace(position=jnp.array([0.3, -0.2]))
    inner = env.env.unwrapped.point_env
    inner.set_state(np.asarray(state.position, float), np.zeros(2))

    def step(state, noise):
        action = jnp.clip(noise - state.position - 0.1 * state.velocity, -1, 1)
        state, found = task.step(KEY, state, action)
        return state, (action, found.observation)

    actions, found = jax.lax.scan(step, state, noise)[1]
    expected = np.array([inner.step(np.asarray(a, float))[0] for a in actions])
    assert np.abs(found[:, :2]).max() > 0.5 and np.abs(found[:, 2:]).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", maze2d.GOALS)
def test_maze2d_has_d4rls_walls(name):
    maze, rng = point_maze(name), np.random.default_rng(1)
    xy, velocity, action = places(maze, 400, rng)
    found = np.concatenate(steps(maze, D4RL_WALLS)(xy, velocity, action), axis=1)
    ball, (height, width) = maze2d_ball.make_ball(maze), maze.free.shape
    x, y = xy.astype(float).T
    qpos = np.stack([height / 2 - 0.7 - y, x - 0.7 + width / 2], axis=1)
    turned = [np.stack([-v[:, 1], v[:, 0]], axis=1).astype(float) for v in (velocity, action)]
    for i, (q, v, a) in enumerate(zip(qpos, *turned, strict=True)):
        after = np.array(maze2d_ball.step(ball, (*q, *v), tuple(a)))
        expected = np.concatenate([maze2d.to_point_maze(maze, after[:2]), maze2d.turn(after[2:])])
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-5)


def test_where_episodes_in_mazes_begin_and_what_they_reward():
    task, maze = simulators.point_maze_task("medium"), point_maze("medium")
    state, observation, goal = jax.vmap(task.reset)(jax.random.split(KEY, 2000))
    start, cells = observation[:, :2], maze.cell_to_xy(maze.free_cells)
    for points in (start, goal):
        gap = np.abs(np.asarray(points)[:, None] - cells).max(-1).min(1)
        assert gap.max() <= 0.25 + 1e-6 and gap.max() > 0.24
        assert len(np.unique(maze.xy_to_cell(points), axis=0)) == len(cells)
    assert (maze.xy_to_cell(start) != maze.xy_to_cell(goal)).any(1).all()
    at = jax.vmap(task.step)(jax.random.split(KEY, 2000), state._replace(position=goal), 0 * goal)[1]
    assert at.reward.all() and at.terminal.all() and at.success.all()

    fixed = simulator("maze2d-medium-v1")
    state, observation, goal = jax.vmap(fixed.reset)(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(goal, np.broadcast_to(maze2d.goal("medium"), goal.shape), rtol=1e-6)
    assert abs(np.std(observation[:, 2:]) / maze2d.START_SPEED - 1) < 0.05
    at = jax.vmap(fixed.step)(jax.random.split(KEY, 2000), state._replace(position=goal), 0 * goal)[1]
    assert at.reward.all() and not at.terminal.any()
    many = simulators.maze2d_task("medium", many_goals=True)
    assert len(np.unique(np.round(jax.vmap(many.reset)(jax.random.split(KEY, 200))[2], 3), axis=0)) == 200


def test_a_pendulum_is_gymnasiums():
    task, env = simulator("Pendulum-v1"), gym.make("Pendulum-v1")
    state, *_ = task.reset(jax.random.key(3))
    env.reset(seed=0)
    env.unwrapped.state = np.array([state.angle, state.speed], float)  # type: ignore[attr-defined]
    actions = np.random.default_rng(0).uniform(-1, 1, (200, 1)).astype(np.float32)

    def step(state, action):
        state, found = task.step(KEY, state, action)
        return state, (found.observation, found.reward)

    seen, rewards = jax.lax.scan(step, state, actions)[1]
    for i, action in enumerate(actions):
        expected, reward, terminated, truncated, _ = env.step(2 * action)
        np.testing.assert_allclose(seen[i], expected, atol=2e-4)
        np.testing.assert_allclose(rewards[i], reward, atol=2e-3)
        assert not terminated and truncated == (i + 1 == task.spec.max_episode_steps)


def test_a_double_integrator_follows_the_closed_form_and_obstacles_end_it():
    task = double_integrator_task(Square(obstacles=((0.0, 0.0, 0.3),), noise=0.0, top_speed=10.0))
    state, _, goal = task.reset(KEY)
    push, found = jnp.array([0.5, -0.25]), None
    for step in range(1, 11):
        state, found = task.step(KEY, state, push)
        np.testing.assert_allclose(found.observation[:2], state.position)
        np.testing.assert_allclose(
            state.position - jnp.array([-0.8, 0.0]), push * (0.1 * step) ** 2 / 2, atol=1e-6
        )
        assert not found.terminal
    for place, failed, success in (
        ((0.0, 0.29), 1, 0),
        ((0.99, 0.0), 0, 0),
        ((1.2, 0.0), 1, 0),
        (goal, 0, 1),
    ):
        put = state._replace(position=jnp.asarray(place), velocity=jnp.zeros(2))
        found = task.step(KEY, put, jnp.zeros(2))[1]
        assert (bool(found.terminal), bool(found.success)) == (bool(failed or success), bool(success))
    np.testing.assert_allclose(
        clearance(jnp.array([[0.0, 0.5], [0.9, 0.0]]), Square(((0, 0, 0.3),))), [0.2, 0.1], rtol=1e-6
    )


def test_time_limits_cut_episodes_whose_last_observation_is_kept():
    """Counters from 0 on: row `i` ends by itself at step `3 + i`, all others at the limit of 5."""

    def reset(key):
        return jnp.zeros(()), jnp.zeros(1), jnp.zeros(0)

    def step(key, state, action):
        state = state + 1
        return state, Stepped(state[None], state, state == action[0], jnp.zeros((), bool))

    task = simulators.double_integrator_task()._replace(reset=reset, step=step)
    task = task._replace(spec=task.spec.__class__(1, 1, None, 5))
    running, rows = begin(task, KEY, 2), []
    # Actions are clipped to [-1, 1]: row 0 ends at its first step, row 1 at the limit.
    for _ in range(6):
        running, found = advance(task, KEY, running, jnp.array([[1.0], [-7.0]]))
        rows.append((*found.observation[:, 0], *found.terminal, *found.truncated, *running.observation[:, 0]))
    ones = [(1, i, True, False, False, i == 5, 0, i % 5) for i in range(1, 6)] + [
        (1, 1, True, False, False, False, 0, 1)
    ]
    np.testing.assert_array_equal(np.array(rows, float), np.array(ones, float))


def test_a_task_without_a_jax_version_is_refused_with_those_that_have_one():
    with pytest.raises(
        UserError, match=r"Ant-v5 has no JAX version: choose one of PointMaze_UMaze-v3, .*Hopper-v5"
    ):
        simulator("Ant-v5")
    assert simulator("maze2d-large-v1") is simulator("maze2d-large-v1")
    assert simulators.point_maze_task("open") == simulators.point_maze_task("open")


def test_what_is_missing_for_mjx_is_named(monkeypatch):
    from jdp.tasks.simulators import locomotion

    def missing(env_id):
        raise ImportError

    monkeypatch.setattr(locomotion, "_model", missing)
    with pytest.raises(UserError, match=r'needs MuJoCo MJX: pip install "jdp\[mjx\]"'):
        locomotion.locomotion_task("Hopper-v5")


@pytest.mark.slow
@pytest.mark.parametrize("env_id", simulators.BODIES)
def test_mjx_bodies_are_gymnasiums_step_by_step(env_id):
    task, env = simulator(env_id), gym.make(env_id)
    spec, inner = task.spec, env.unwrapped
    state, observation, _ = jax.jit(jax.vmap(task.reset))(jax.random.split(KEY, 4))
    assert (
        observation.shape == (4, env.observation_space.shape[0])
        and spec.action_dim == env.action_space.shape[0]
    )
    step, rng = jax.jit(jax.vmap(task.step)), np.random.default_rng(0)
    ended, gaps = [], []
    for _ in range(60):
        action = rng.uniform(-1, 1, (4, spec.action_dim)).astype(np.float32)
        before, (state, found) = state, step(jax.random.split(KEY, 4), state, action)
        for i in range(4):
            env.reset(seed=0)
            inner.set_state(np.asarray(before.position[i], float), np.asarray(before.velocity[i], float))
            expected, reward, terminated, *_ = inner.step(action[i])
            gaps.append([np.abs(found.observation[i] - expected).max(), abs(found.reward[i] - reward)])
            ended.append(terminated)
            assert terminated == bool(found.terminal[i])
    assert np.median(gaps) < 1e-4 and np.quantile(gaps, 0.95) < 1e-2
    assert any(ended) == (env_id != "HalfCheetah-v5")


def test_a_chunk_of_actions_is_its_steps_until_the_end():
    task = double_integrator_task(Square(obstacles=((-0.1, 0.0, 0.2),), noise=0.0, top_speed=10.0))
    whole, push = simulators.chunked(task, 8), jnp.array([1.0, 0.0])
    assert (whole.spec.action_dim, whole.spec.max_episode_steps) == (16, 12)
    state, *_ = task.reset(KEY)
    for _ in range(3):  # in the second chunk the obstacle is met, and nothing happens afterwards
        steps, after = [], state
        for _ in range(8):
            after, found = task.step(KEY, after, push)
            steps.append(found)
            if found.terminal:
                break
        state, together = whole.step(KEY, state, jnp.tile(push, 8))
        np.testing.assert_allclose(together.observation, steps[-1].observation)
        assert together.terminal == steps[-1].terminal and together.reward == sum(s.reward for s in steps)
        if together.terminal:
            break
    assert together.terminal and len(steps) < 8
    with pytest.raises(UserError, match="ends after 100 steps, before 101 actions"):
        simulators.chunked(task, 101)


def test_where_observations_tell_the_state_it_is_found_again():
    """`state_of` is the inverse of observing: a plan can start from what is seen. Angles are within +-pi."""
    known = ("Pendulum-v1", "jdp/DoubleIntegrator-v0", "PointMaze_UMaze-v3")
    tasks = [*map(simulator, known), simulators.observed_goal(simulator("maze2d-umaze-v1"))]

    @jax.jit
    def both(key):
        found = [task.reset(key) for task in tasks]
        again = [
            t.state_of(seen, goal) for t, (_, seen, goal) in zip(tasks, found, strict=True) if t.state_of
        ]
        return [state for state, *_ in found], again

    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), *both(KEY))
    assert simulators.chunked(tasks[0], 2).state_of is tasks[0].state_of
    observed = simulators.observed_goal(simulators.point_maze_task("umaze")._replace(state_of=None))
    assert observed.state_of is None
