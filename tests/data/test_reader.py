"""The reader of the D4RL layout, on good files and on every kind of bad one."""

import h5py
import numpy as np
import pytest
from data_files import columns, write

import jdp.data
from jdp.errors import UserError


def load(tmp_path, values, **kwargs):
    return jdp.data.load(write(tmp_path / "my.hdf5", values), **kwargs)


def test_what_a_file_says_arrives_unchanged(tmp_path):
    values = columns(10, terminal_rows=[3], timeout_rows=[6, 9])
    data = load(tmp_path, values)
    for key, expected in values.items():
        np.testing.assert_array_equal(getattr(data, key), expected)
    np.testing.assert_array_equal(data.starts, [0, 4, 7])
    np.testing.assert_array_equal(data.stops, [4, 7, 10])
    np.testing.assert_allclose(
        data.returns, [values["rewards"][i:j].sum() for i, j in ((0, 4), (4, 7), (7, 10))], rtol=1e-6
    )
    assert data.next_valid.all() and len(data) == 10 and len(jdp.data.transitions(data).reward) == 10
    assert data.origin.name == "my.hdf5 (file)" and data.origin.size == (tmp_path / "my.hdf5").stat().st_size


def test_columns_may_have_a_second_axis_and_other_types(tmp_path):
    values = columns(6, terminal_rows=[5])
    for key in ("rewards", "terminals", "timeouts"):
        values[key] = values[key][:, None].astype(np.float64)
    data = load(tmp_path, values)
    assert data.rewards.shape == (6,) and data.rewards.dtype == np.float32
    np.testing.assert_array_equal(np.flatnonzero(data.terminals), [5])


def test_a_terminal_beats_a_timeout_on_the_same_row(tmp_path):
    data = load(tmp_path, columns(6, terminal_rows=[2], timeout_rows=[2, 5]))
    np.testing.assert_array_equal(np.flatnonzero(data.terminals), [2])
    np.testing.assert_array_equal(np.flatnonzero(data.timeouts), [5])


def test_the_end_of_the_file_is_a_timeout(tmp_path):
    data = load(tmp_path, columns(6, terminal_rows=[2]))
    np.testing.assert_array_equal(np.flatnonzero(data.timeouts), [5])


def test_without_next_observations_no_successor_is_taken_from_behind_a_reset(tmp_path):
    values = columns(9, terminal_rows=[2], timeout_rows=[5])
    del values["next_observations"]
    data = load(tmp_path, values)
    np.testing.assert_array_equal(np.flatnonzero(~data.next_valid), [2, 5, 8])
    steps = jdp.data.transitions(data)
    keep = [0, 1, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(steps.observation, values["observations"][keep])
    successor = values["observations"][[1, 2, 2, 4, 5, 7, 8]]  # the terminal stands in for its own
    np.testing.assert_array_equal(steps.next_observation, successor)
    np.testing.assert_array_equal(steps.terminal, np.eye(9, dtype=np.float32)[2][keep])


def test_without_timeouts_a_jump_of_the_observations_ends_an_episode(tmp_path):
    values = columns(9, terminal_rows=[2], timeout_rows=[5])
    del values["timeouts"]
    data = load(tmp_path, values)
    np.testing.assert_array_equal(data.stops, [3, 6, 9])
    np.testing.assert_array_equal(np.flatnonzero(data.timeouts), [5, 8])


def test_without_timeouts_and_successors_the_time_limit_ends_an_episode(tmp_path):
    values = columns(2500, terminal_rows=[299])
    del values["timeouts"], values["next_observations"]
    data = load(tmp_path, values, env_id="Hopper-v4")
    np.testing.assert_array_equal(data.stops, [300, 1300, 2300, 2500])


def test_the_task_comes_from_the_argument_then_from_the_file(tmp_path):
    values = columns(5) | {"metadata/env_id": "Walker2d-v5"}
    data = load(tmp_path, values)
    assert data.spec.env_id == "Walker2d-v5" and data.spec.score_range == (1.629008, 4592.3)
    assert load(tmp_path, values, env_id="Hopper-v5").spec.env_id == "Hopper-v5"
    antmaze = load(tmp_path, values, env_id="AntMaze_UMaze-v5").spec
    assert antmaze.score_range is None and antmaze.max_episode_steps == 700  # as it is registered
    assert load(tmp_path, columns(5)).spec.env_id is None


def broken(key, change):
    def make(values):
        values[key] = change(values[key].copy())
        return values

    return make


def with_nan(values):
    values["observations"][4, 1] = np.nan
    values["observations"][7, :] = np.inf
    return values


def without_terminals(values):
    del values["terminals"]
    return values


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (without_terminals, ("'terminals'", "observations, rewards, timeouts")),
        (with_nan, ("4 values of 'observations'", "row 4")),
        (broken("rewards", lambda x: np.where(x > 0, np.nan, x)), ("'rewards'",)),
        (broken("rewards", lambda x: x[:-1]), ("rewards 9", "actions 10")),
        (broken("rewards", lambda x: np.stack([x, x], 1)), ("'rewards'", "(10, 2)")),
        (broken("actions", lambda x: 2 * x), ("[-1, 1]", "at row")),
        (broken("actions", lambda x: x[:, 0]), ("'actions'", "(10,)")),
        (broken("observations", lambda x: np.zeros((10, 4, 4, 3))), ("'observations'", "(10, 4, 4, 3)")),
        (broken("next_observations", lambda x: x[:, :2]), ("'next_observations' has 2", "3")),
        (broken("terminals", lambda x: x + 2), ("'terminals'", "0 and 1")),
        (lambda values: {k: v[:0] for k, v in values.items()}, ("no rows",)),
    ],
)
def test_a_bad_file_gets_one_line_that_names_the_fault(tmp_path, make, words):
    with pytest.raises(UserError) as error:
        load(tmp_path, make(columns(10, terminal_rows=[9])))
    line = str(error.value)
    assert "\n" not in line and "my.hdf5" in line
    for word in words:
        assert word in line


def test_actions_a_rounding_beyond_one_are_clipped(tmp_path):
    values = columns(10)
    values["actions"][3] = 1.0005
    assert np.abs(load(tmp_path, values).actions).max() == 1.0


def test_a_file_that_does_not_open(tmp_path):
    path = write(tmp_path / "cut.hdf5", columns(5000))
    whole = (tmp_path / "cut.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.hdf5 does not open as HDF5 .*truncated"):
        jdp.data.load(path)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(UserError, match="does not open as HDF5"):
        jdp.data.load(str(tmp_path / "text.hdf5"))
    with pytest.raises(UserError, match="no file"):
        jdp.data.load(str(tmp_path / "absent.hdf5"))
    with pytest.raises(UserError, match="is a folder"):
        jdp.data.load(str(tmp_path))


def test_a_group_in_place_of_an_array(tmp_path):
    path = write(tmp_path / "my.hdf5", {k: v for k, v in columns(5).items() if k != "rewards"})
    with h5py.File(path, "a") as file:
        file.create_group("rewards")
    with pytest.raises(UserError, match="'rewards' is a group"):
        jdp.data.load(path)


def test_one_number_in_the_place_of_a_column_is_refused_in_memory_and_in_files(tmp_path):
    path = write(tmp_path / "scalar.hdf5", columns(5) | {"rewards": np.float32(1)})
    for mapped in (None, tmp_path / "mapped"):
        with pytest.raises(UserError, match="'rewards' is float32"):
            jdp.data.load(path, mapped=mapped)
