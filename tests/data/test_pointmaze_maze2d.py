"""D4RL's maze2d in PointMaze coordinates, on files made by a stand-in for D4RL's collector."""

import numpy as np
import pytest
from data_files import write

import jdp.data
from jdp.data import names
from jdp.errors import UserError
from jdp.tasks import maze2d, point_maze
from jdp.tasks.collect import Collection, collect_point_maze, point_simulator

pytest.importorskip("gymnasium_robotics")


def d4rl_file(path, name="umaze", *, goal_every=150, resets=(), steps=1200):
    """A file as D4RL's collector writes it, from rollouts in PointMaze turned into D4RL's coordinates."""
    maze, height, width = point_maze(name), *np.array(point_maze(name).free.shape)
    ours, _ = collect_point_maze(Collection(name, steps=steps, episode_steps=steps))
    x, y, vx, vy = ours.observation.astype(np.float64).T
    # the inverse of the map, written out: column = x + W/2 - 1/2, row = H/2 - 1/2 - y, both less .2
    qpos = np.stack([height / 2 - 0.5 - y - 0.2, x + width / 2 - 0.5 - 0.2], 1)
    qvel, actions = np.stack([-vy, vx], 1), np.stack([-ours.action[:, 1], ours.action[:, 0]], 1)
    timeouts = np.arange(1, steps + 1) % goal_every == 0
    for row in resets:  # the ball is put elsewhere
        qpos[row:] = np.roll(qpos[row:], 7, axis=0)
    observations = np.concatenate([qpos, qvel], 1)
    stale = np.flatnonzero(timeouts)[:-1] + 1
    observations[stale] = observations[stale - 1]
    values = {
        "observations": observations.astype(np.float32),
        "actions": actions,
        "rewards": (np.linalg.norm(observations[:, :2] - maze2d.GOALS[name], axis=1) <= 0.5).astype(
            np.float32
        ),
        "terminals": np.zeros(steps, bool),
        "timeouts": timeouts,
        "infos/goal": np.zeros((steps, 2), np.float32),
        "infos/qpos": qpos.astype(np.float32),
        "infos/qvel": qvel.astype(np.float32),
    }
    assert maze.is_free(ours.observation[:, :2]).all()
    return write(path, values), ours


@pytest.mark.parametrize("name", maze2d.GOALS)
def test_states_and_actions_arrive_in_point_maze_and_the_stale_rows_are_repaired(tmp_path, name):
    path, ours = d4rl_file(tmp_path / f"maze2d-{name}-sparse-v1.hdf5", name)
    data = jdp.data.load(path)
    np.testing.assert_allclose(data.observations, ours.observation, atol=2e-6)
    np.testing.assert_allclose(data.actions, ours.action, atol=1e-7)
    np.testing.assert_array_equal(data.stops, [1200])  # one episode: no reset anywhere
    np.testing.assert_array_equal(np.flatnonzero(~data.next_valid), [1199])
    reference = names.reference_table()[f"maze2d-{name}-v1"]
    assert data.spec.score_range == reference.score_range and data.spec.goal == (0, 1)
    assert data.spec.max_episode_steps == reference.max_episode_steps
    assert "maze2d" in data.origin.notice and "\n" not in data.origin.notice
    near = np.linalg.norm(data.observations[:, :2] - maze2d.goal(name), axis=1) <= maze2d.REACHED
    assert (near == (data.rewards == 1)).mean() > 0.99


def test_mapped_rows_are_steps_of_point_maze(tmp_path):
    path, _ = d4rl_file(tmp_path / "maze2d-medium-sparse-v1.hdf5", "medium", steps=600)
    data, point = jdp.data.load(path), point_simulator("medium")
    for i in range(0, 599):
        point.set_state(data.observations[i, :2].astype(float), data.observations[i, 2:].astype(float))
        found = point.step(data.actions[i])[0]
        np.testing.assert_allclose(
            found, data.next_observations[i], atol=1e-3 if np.abs(found).max() > 4 else 1e-4
        )


def test_the_map_is_a_rotation_and_puts_goals_at_their_cells():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 2))
    maze = point_maze("large")
    moved = maze2d.to_point_maze(maze, a) - maze2d.to_point_maze(maze, b)
    np.testing.assert_allclose(moved, maze2d.turn(a - b), atol=1e-12)
    np.testing.assert_allclose(maze2d.turn(maze2d.turn(a)), -a)
    for name, cell in maze2d.GOALS.items():
        maze = point_maze(name)
        assert tuple(maze.xy_to_cell(maze2d.goal(name))) == cell
        np.testing.assert_allclose(np.abs(maze2d.goal(name) - maze.cell_to_xy(cell)), 0.2)


def test_a_real_jump_ends_an_episode(tmp_path):
    path, _ = d4rl_file(tmp_path / "maze2d-umaze-dense-v1.hdf5", resets=(400,))
    data = jdp.data.load(path)
    np.testing.assert_array_equal(data.stops[0], 400)
    assert not data.next_valid[399] and data.spec.score_range == (68.537689, 193.66285642381482)


def test_a_file_is_recognised_by_its_name_its_content_or_a_given_task(tmp_path):
    path, ours = d4rl_file(tmp_path / "mine.hdf5", steps=1500)
    with pytest.raises(UserError, match=r"does not say which maze: give env_id='maze2d-umaze-v1'") as error:
        jdp.data.load(path)
    assert "\n" not in str(error.value)
    for given in ("maze2d-umaze-v1", "PointMaze_UMaze-v3"):
        data = jdp.data.load(path, env_id=given)
        assert data.spec.env_id == "PointMaze_UMaze-v3" and data.spec.score_range == (23.85, 161.86)
        np.testing.assert_allclose(data.observations, ours.observation, atol=2e-6)
    with pytest.raises(UserError, match="in a wall of maze2d-large"):
        jdp.data.load(path, env_id="maze2d-large-v1")
    plain = {"observations": np.zeros((3, 4)), "actions": np.zeros((3, 2)), "rewards": np.zeros(3),
             "terminals": np.zeros(3, bool)}  # fmt: skip
    no_maze = write(tmp_path / "plain.hdf5", plain)
    assert jdp.data.load(no_maze).spec.env_id is None
    with pytest.raises(UserError, match="no maze2d file"):
        jdp.data.load(no_maze, env_id="maze2d-large-v1")


def test_official_names_load_the_same_way(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    url = names.reference_table()["maze2d-umaze-v1"].url
    _, ours = d4rl_file(tmp_path / url.rpartition("/")[2], steps=200)
    data = jdp.data.load("maze2d-umaze-v1")
    assert data.origin.name == "maze2d-umaze-v1 (D4RL)" and data.spec.env_id == "PointMaze_UMaze-v3"
    np.testing.assert_allclose(data.observations, ours.observation, atol=2e-6)


def test_names_of_other_mazes_are_left_alone():
    assert maze2d.parse("maze2d-large-v1") == ("large", "maze2d-large-v1")
    assert maze2d.parse("maze2d-medium-dense-v1") == ("medium", "maze2d-medium-dense-v1")
    for other in ("maze2d-large-v0", "maze2d-open-v0", "maze2d-eval-large-v1", "antmaze-large-play-v2", None):
        assert maze2d.parse(other) is None
