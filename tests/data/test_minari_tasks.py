"""A Minari dataset's task is what it says of its environment, and not its id alone."""

import json
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

import jdp
from jdp.evaluation import make_env, make_goal_env, protocol
from jdp.tasks import maze_of
from jdp.tasks.environments import description
from jdp.types import Spec
from jdp.world_models import termination


@pytest.fixture(autouse=True)
def minari_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def record(name, env, observation, action, *, steps=6, **options):
    """A dataset of two episodes of zeros, that names `env`."""
    import minari
    from minari.data_collector import EpisodeBuffer

    def many(space, count):
        zero = space.sample()
        if isinstance(zero, dict):
            return {key: many(space[key], count) for key in zero}
        return np.zeros((count, *space.shape), space.dtype)

    flags = np.zeros(steps, bool), np.arange(steps) == steps - 1
    buffers = [
        EpisodeBuffer(
            id=i,
            observations=many(observation, steps + 1),  # type: ignore[arg-type]
            actions=many(action, steps),  # type: ignore[arg-type]
            rewards=np.zeros(steps),  # type: ignore[arg-type]
            terminations=flags[0],  # type: ignore[arg-type]
            truncations=flags[1],  # type: ignore[arg-type]
        )
        for i in range(2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(
            name, buffers, env=env, observation_space=observation, action_space=action, **options
        )


def spec_of(env) -> EnvSpec:
    assert env.spec is not None
    return env.spec


def test_settings_and_the_limit_of_the_recording_are_played():
    settings = {"terminate_when_unhealthy": False, "forward_reward_weight": 3.0}
    env = gym.make("Hopper-v5", max_episode_steps=120, **settings)
    dataset = record("made/hopper-v0", spec_of(env), env.observation_space, env.action_space)
    data = jdp.data.load("made/hopper-v0")
    spec = data.spec
    assert spec.max_episode_steps == 120 and spec.score_range is None  # of other rewards and lengths
    assert "terminate_when_unhealthy=False" in data.origin.notice
    made, wanted = make_env(spec), dataset.recover_environment()
    assert spec_of(made).kwargs == spec_of(wanted).kwargs and spec_of(made).max_episode_steps == 120
    made.reset(seed=0)
    wanted.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 3)):
        ours, theirs = made.step(action), wanted.step(action)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]
    # What is known of the id is not believed of this task.
    assert termination.rule(spec) is None and termination.rule(spec.env_id) is not None
    assert hash(spec) == hash(Spec(**json.loads(json.dumps(vars(spec))) | {"goal": (), "groups": ()}))


def test_the_environment_for_evaluation_beats_that_of_the_recording():
    long = gym.make("Pendulum-v1", max_episode_steps=4000)
    judge = gym.make("Pendulum-v1", max_episode_steps=30, g=5.0)
    record("made/p-v0", long, long.observation_space, long.action_space, eval_env=judge)
    spec = jdp.data.load("made/p-v0").spec
    env = make_env(spec)
    assert spec.max_episode_steps == 30 and env.unwrapped.g == 5.0  # type: ignore[attr-defined]
    plain = jdp.data.load("made/p-v0", env_id="Pendulum-v1", max_episode_steps=7).spec
    assert plain.env_spec is None and spec_of(make_env(plain)).max_episode_steps == 7


def test_wrappers_of_the_recording_are_played():
    env = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), -1.0, 1.0)  # pyright: ignore[reportArgumentType]
    record("made/rescaled-v0", env.spec, env.observation_space, env.action_space)
    spec = jdp.data.load("made/rescaled-v0").spec
    made, bare = make_env(spec), gym.make("Pendulum-v1")
    assert spec.action_low is None and made.action_space == Box(-1, 1, (1,), np.float32)
    made.reset(seed=0)
    bare.reset(seed=0)
    step = made.step(np.array([0.5], np.float32))[0], bare.step(np.array([1.0], np.float32))[0]
    np.testing.assert_allclose(*step, rtol=1e-6)


def test_a_task_that_its_id_tells_needs_no_description():
    for env_id in ("Hopper-v5", "Pendulum-v1"):
        assert description(gym.spec(env_id)) is None
        assert description(spec_of(gym.make(env_id, max_episode_steps=17, render_mode="rgb_array"))) is None
    assert description(spec_of(gym.make("Pendulum-v1", g=1.0))) is not None


def test_a_limit_that_was_written_as_a_float_is_a_whole_number():
    spec = spec_of(gym.make("Pendulum-v1", g=1.0))
    written = json.loads(spec.to_json()) | {"max_episode_steps": 30.0}
    told = description(EnvSpec.from_json(json.dumps(written)))
    assert spec_of(make_env(Spec(3, 1, "Pendulum-v1", env_spec=told))).max_episode_steps == 30


def test_a_maze_of_one_s_own_is_played_and_planned_in():
    rows = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    env = make_env("PointMaze_UMaze-v3", maze_map=rows, continuing_task=True, max_episode_steps=40)
    record("made/maze-v0", env.spec, env.observation_space, env.action_space)
    spec = jdp.data.load("made/maze-v0").spec
    maze = maze_of(spec)
    assert maze is not None and maze.rows == ("#####", "#...#", "#...#", "#####")
    made = make_goal_env(spec, task=protocol(spec))
    assert made.max_episode_steps == 40 and made.maze == maze and spec.goal == (0, 1)
    for cell in maze.free_cells:
        start, _ = made.reset(0, start=maze.cell_to_xy(cell))
        np.testing.assert_allclose(start[:2], maze.cell_to_xy(cell))
    # Its own centre is a wall of the registered maze.
    assert maze_of("PointMaze_UMaze-v3") != maze
