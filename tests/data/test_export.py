"""What is written reads back equal, or is not written at all."""

import numpy as np
import pytest
from data_files import columns, random_episodes

import jdp.data
from jdp.data import transitions
from jdp.data.export import save_d4rl, save_minari
from jdp.errors import UserError
from jdp.types import Transition


@pytest.fixture
def minari_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def assert_equal(found, expected):
    for key in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key), err_msg=key)
    np.testing.assert_array_equal(found.starts, expected.starts)
    np.testing.assert_array_equal(found.stops, expected.stops)
    assert found.next_valid.all()


@pytest.mark.parametrize("with_timeouts", [True, False])
def test_the_d4rl_layout_round_trips(tmp_path, with_timeouts):
    data = random_episodes(0)
    timeouts = data.timeouts if with_timeouts else None
    path = tmp_path / "new" / "folder" / "x.hdf5"
    save_d4rl(path, transitions(data), timeouts, env_id="Hopper-v5", metadata={"seed": 3, "made_by": "test"})
    found = jdp.data.load(str(path))
    assert_equal(found, data)
    assert found.spec.env_id == "Hopper-v5"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("env_id", [None, "Hopper-v5"])
def test_minari_round_trips(minari_home, env_id):
    data = random_episodes(1)
    steps, timeouts = transitions(data), data.timeouts
    if env_id is not None:  # the spaces must be those of the task
        rng = np.random.default_rng(0)
        states = rng.normal(size=(len(data) + 1, 11)).astype(np.float32)
        actions = rng.uniform(-1, 1, size=(len(data), 3)).astype(np.float32)
        steps = steps._replace(observation=states[:-1], next_observation=states[1:], action=actions)
    save_minari("jdp/test/round-trip-v0", steps, timeouts, env_id=env_id, score_range=(-1.0, 2.0))
    found = jdp.data.load("jdp/test/round-trip-v0")
    for name, expected in steps._asdict().items():
        np.testing.assert_array_equal(getattr(transitions(found), name), expected, err_msg=name)
    np.testing.assert_array_equal(found.stops, data.stops)
    np.testing.assert_array_equal(found.terminals, data.terminals)
    np.testing.assert_array_equal(found.timeouts, timeouts)
    assert found.origin.name == "jdp/test/round-trip-v0 (Minari)" and found.origin.size > 0
    if env_id is not None:
        assert found.spec.env_id == env_id and found.spec.score_range == (-1.0, 2.0)
        assert found.spec.max_episode_steps == 1000
    with pytest.raises(UserError, match="already"):
        save_minari("jdp/test/round-trip-v0", steps, timeouts)


def test_a_broken_chain_is_refused_and_nothing_written(minari_home):
    data = random_episodes(2)
    steps = transitions(data)
    timeouts = data.timeouts.copy()
    timeouts[data.stops[~data.terminated][0] - 1] = False  # the reset behind it is unmarked now
    with pytest.raises(UserError, match="next_observation of row"):
        save_minari("jdp/test/broken-v0", steps, timeouts)
    with pytest.raises(UserError, match="could not write Minari dataset"):
        save_minari("jdp/test/broken-v0", steps, data.timeouts, env_id="NoSuchTask-v0")
    assert not (minari_home / "jdp" / "test" / "broken-v0").exists()


def test_bad_transitions_are_refused_before_a_file_exists(tmp_path):
    values = columns(5)
    steps = Transition(
        values["observations"],
        3 * values["actions"],
        values["rewards"],
        values["next_observations"],
        np.zeros(5, np.float32),  # type: ignore[arg-type]
    )
    with pytest.raises(UserError, match=r"\[-1, 1\]"):
        save_d4rl(tmp_path / "x.hdf5", steps)
    with pytest.raises(UserError, match="NaN"):
        save_d4rl(tmp_path / "x.hdf5", steps._replace(action=values["actions"], reward=np.full(5, np.nan)))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not write"):
        save_d4rl(tmp_path / "file" / "x.hdf5", transitions(random_episodes(0)))


def test_minari_mistakes_are_one_line(minari_home, monkeypatch):
    with pytest.raises(UserError, match="needs a version"):
        jdp.data.load("mujoco/hopper/medium")

    import minari

    def fail(error):
        def load_dataset(dataset_id, download=False):
            raise error if download else FileNotFoundError(dataset_id)

        monkeypatch.setattr(minari, "load_dataset", load_dataset)

    fail(ImportError("huggingface_hub is not installed"))
    with pytest.raises(UserError, match=r"pip install 'jdp\[hf\]'"):
        jdp.data.load("mujoco/hopper/medium-v0")
    fail(ConnectionError("no route\nto host"))
    with pytest.raises(
        UserError, match="could not download Minari dataset mujoco/hopper/medium-v0: no route;"
    ):
        jdp.data.load("mujoco/hopper/medium-v0")


def test_dict_observations_without_the_entries_read_are_refused_with_their_keys(minari_home):
    import minari
    from gymnasium.spaces import Box, Dict
    from minari.data_collector import EpisodeBuffer

    zeros = np.zeros((4, 2), np.float32)
    episode = EpisodeBuffer(
        observations={"achieved_goal": zeros, "state": zeros},
        actions=zeros[:3],  # type: ignore[arg-type]
        rewards=[0.0] * 3,
        terminations=[False] * 3,
        truncations=[False, False, True],
    )
    box = Box(-1, 1, (2,), np.float32)
    space = Dict({"achieved_goal": box, "state": box})
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("maze-v0", [episode], observation_space=space, action_space=box)
    with pytest.raises(UserError, match="keys achieved_goal, state, without 'observation'"):
        jdp.data.load("maze-v0", source="minari")


def test_a_compact_file_is_the_same_but_for_the_last_successors(tmp_path):
    data = random_episodes(3)
    save_d4rl(tmp_path / "x.hdf5", transitions(data), data.timeouts, compact=True)
    found = jdp.data.load(str(tmp_path / "x.hdf5"))
    ends = data.terminals | data.timeouts
    np.testing.assert_array_equal(found.next_valid, ~ends)
    for key in ("observations", "actions", "rewards", "terminals", "timeouts", "stops"):
        np.testing.assert_array_equal(getattr(found, key), getattr(data, key), err_msg=key)
    np.testing.assert_array_equal(found.next_observations[~ends], data.next_observations[~ends])
    steps = transitions(data)
    timeouts = data.timeouts.copy()
    timeouts[data.stops[~data.terminated][0] - 1] = False
    with pytest.raises(UserError, match="next_observation of row"):
        save_d4rl(tmp_path / "y.hdf5", steps, timeouts, compact=True)
    assert not (tmp_path / "y.hdf5").exists()
