"""OGBench's npz files, and the dict observations of Minari's goal tasks."""

import numpy as np
import pytest

import jdp.data
from jdp.errors import UserError

STAND_IN = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"  # Minari makes the task when it writes


def ogbench_columns(lengths=(4, 2, 6), width=2, seed=0):
    """`length` steps and one more observation for each episode, as `ogbench.load_dataset` describes it."""
    rng, rows = np.random.default_rng(seed), sum(lengths) + len(lengths)
    ends = np.zeros(rows, bool)
    ends[np.cumsum(np.array(lengths) + 1) - 1] = True
    return {
        "observations": rng.normal(size=(rows, width)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
        "terminals": ends.astype(np.float32),
        "qpos": rng.normal(size=(rows, width)),
    }


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OGBENCH_DATA_DIR", str(tmp_path))
    return tmp_path


def test_an_ogbench_set_is_what_ogbench_reads(home):
    utils = pytest.importorskip("ogbench.utils")
    path = home / "pointmaze-large-navigate-v0.npz"
    np.savez(path, **ogbench_columns())
    data, theirs = jdp.data.load("pointmaze-large-navigate-v0"), utils.load_dataset(str(path))
    for key in ("observations", "actions", "next_observations"):
        np.testing.assert_array_equal(getattr(data, key), theirs[key], err_msg=key)
    np.testing.assert_array_equal(data.timeouts, theirs["terminals"].astype(bool))
    np.testing.assert_array_equal(data.lengths, [4, 2, 6])
    assert data.next_valid.all() and not data.terminals.any() and not data.rewards.any()
    assert data.spec.env_id == "pointmaze-large-navigate-v0" and data.spec.goal == (0, 1)
    assert data.origin.name == "pointmaze-large-navigate-v0 (OGBench)" and "no rewards" in data.origin.notice


def test_a_file_of_the_layout_and_the_validation_part(home):
    np.savez(home / "cube-single-play-v0-val.npz", **ogbench_columns())
    data = jdp.data.load("cube-single-play-v0-val")
    assert data.spec.goal == (0, 1) and data.spec.env_id == "cube-single-play-v0"  # all of its 2 entries
    np.savez(home / "mine.npz", **ogbench_columns())
    mine = jdp.data.load(str(home / "mine.npz"), env_id="antmaze-large-navigate-v0")
    np.testing.assert_array_equal(mine.observations, data.observations)
    assert mine.origin.name == "mine.npz (file)" and mine.spec.env_id == "antmaze-large-navigate-v0"
    assert jdp.data.load(str(home / "mine.npz")).spec.goal == ()


def test_ogbench_mistakes_are_one_line(home):
    cases = {}
    with pytest.raises(UserError, match=r"fetch https://.*put it there, or set") as error:
        jdp.data.load("antmaze-giant-navigate-v0")
    cases["missing"] = error
    path = home / "mine.npz"
    path.write_bytes(b"PK no archive")
    with pytest.raises(UserError, match="does not open as npz") as error:
        jdp.data.load(str(path))
    cases["broken"] = error
    values = ogbench_columns()
    np.savez(path, **{k: v for k, v in values.items() if k != "terminals"})
    with pytest.raises(UserError, match="no key 'terminals'") as error:
        jdp.data.load(str(path))
    cases["key"] = error
    np.savez(path, **(values | {"observations": np.array([{}] * 15, object)}))
    with pytest.raises(UserError, match="does not open as npz") as error:
        jdp.data.load(str(path))  # a pickle inside is never loaded
    cases["pickle"] = error
    np.savez(path, **(values | {"terminals": np.ones(15)}))
    with pytest.raises(UserError, match="no episode has a step") as error:
        jdp.data.load(str(path))
    cases["empty"] = error
    np.savez(path, **(values | {"observations": np.zeros((15, 8, 8, 3), np.uint8)}))
    with pytest.raises(UserError, match="'observations' is uint8") as error:
        jdp.data.load(str(path))
    cases["pictures"] = error
    assert all("\n" not in str(e.value) for e in cases.values())


@pytest.mark.parametrize(
    ("env_id", "width", "expected"),
    [("PointMaze_UMaze-v3", 4, 4), ("AntMaze_UMaze-v4", 27, 29), ("FrankaKitchen-v1", 59, 59)],
)
def test_dict_observations_are_flat_and_without_the_desired_goal(
    tmp_path, monkeypatch, env_id, width, expected
):
    minari = pytest.importorskip("minari")
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.spaces import Box, Dict
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    parts = {"observation": rng.normal(size=(6, width)), "achieved_goal": rng.normal(size=(6, 2)),
             "desired_goal": rng.normal(size=(6, 2))}  # fmt: skip
    episode = EpisodeBuffer(
        observations=parts,
        actions=np.zeros((5, 2), np.float32),  # type: ignore[arg-type]
        rewards=[0.0] * 5,
        terminations=[False] * 5,
        truncations=[False] * 4 + [True],
    )
    space = Dict({k: Box(-np.inf, np.inf, v.shape[1:], np.float64) for k, v in parts.items()})
    name = f"D4RL/{env_id.partition('_')[0].lower()}/test-v1"
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            name, [episode], env=EnvSpec(env_id, STAND_IN, max_episode_steps=7), observation_space=space,
            action_space=Box(-1, 1, (2,), np.float32),
        )  # fmt: skip
    data = jdp.data.load(name)
    flat = parts["observation"]
    if env_id.startswith("AntMaze"):
        flat = np.concatenate([parts["achieved_goal"], flat], axis=1)
    np.testing.assert_array_equal(data.observations, flat[:-1].astype(np.float32))
    np.testing.assert_array_equal(data.next_observations, flat[1:].astype(np.float32))
    assert data.spec.observation_dim == expected and data.spec.max_episode_steps == 7
    assert data.spec.goal == (() if env_id.startswith("Franka") else (0, 1))


def test_d4rl_names_of_goal_tasks(tmp_path, monkeypatch):
    """Antmaze's position is its goal; kitchen's 60 entries hold constants of the task, no state's."""
    from data_files import write

    from jdp.data import names

    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    for name, width, goal in (("antmaze-umaze-v2", 29, (0, 1)), ("kitchen-partial-v0", 60, ())):
        values = {"observations": np.zeros((5, width)), "actions": np.zeros((5, 8)), "rewards": np.zeros(5),
                  "terminals": np.zeros(5, bool), "timeouts": np.arange(5) == 4}  # fmt: skip
        write(tmp_path / names.reference_table()[name].url.rpartition("/")[2], values)
        spec = jdp.data.load(name).spec
        assert spec.goal == goal and spec.env_id is None and spec.score_range is not None
