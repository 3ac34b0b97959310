"""Ends of episodes that a file marks, does not mark, or marks against what its next observations say."""

import numpy as np
import pytest
from data_files import columns, write

import jdp
from jdp import UserError
from jdp.data.ends import find_ends


def chained(lengths, seed=0):
    """`(observations, next observations)` of episodes of these lengths: each row leads to the next."""
    rng, n = np.random.default_rng(seed), sum(lengths)
    observations = rng.normal(size=(n, 3)).astype(np.float32)
    following = np.concatenate([observations[1:], observations[:1]])
    following[np.cumsum(lengths) - 1] = rng.normal(size=(len(lengths), 3))
    return observations, following


def test_a_file_that_marks_nothing_ends_at_the_limit_of_its_task(tmp_path):
    values = columns(150)
    del values["next_observations"]
    for flags in ({}, {"timeouts": np.zeros(150, bool)}):
        values.pop("timeouts", None)
        data = jdp.data.load(write(tmp_path / "reacher.hdf5", values | flags), env_id="Reacher-v5")
        np.testing.assert_array_equal(data.lengths, [50, 50, 50])  # as Gymnasium registers it
        assert "after 50 steps, the task's limit" in data.origin.notice
    asked = jdp.data.load(write(tmp_path / "r.hdf5", values), env_id="Reacher-v5", max_episode_steps=75)
    np.testing.assert_array_equal(asked.lengths, [75, 75])
    assert asked.spec.max_episode_steps == 75
    unknown = jdp.data.load(write(tmp_path / "unknown.hdf5", values))
    assert len(unknown.lengths) == 1 and "end at terminals" in unknown.origin.notice


def test_next_observations_that_lead_elsewhere_cut_where_no_end_is_marked():
    lengths = [50, 50, 25, 50]
    observations, following = chained(lengths)
    truth, nothing = np.cumsum(lengths) - 1, np.zeros(175, bool)
    marked = nothing.copy()
    marked[[49, 99, 174]] = True  # the recording that was cut short has no flag
    found = find_ends(observations, following, nothing, marked, 50)
    np.testing.assert_array_equal(np.flatnonzero(found.timeouts), truth)
    assert "of 1 of 175 rows" in found.notice and "returns mean nothing" not in found.notice
    whole = find_ends(observations, following, nothing, found.timeouts, 50)
    assert whole.notice == "" and whole.timeouts is found.timeouts


def test_rows_in_random_order_are_steps_of_their_own_and_said_to_be():
    observations, following = chained([100])
    order = np.random.default_rng(1).permutation(100)
    for flags in (np.zeros(100, bool), np.arange(100) % 10 == 9):  # shuffled along, they mark nothing
        found = find_ends(observations[order], following[order], np.zeros(100, bool), flags, 50)
        assert found.timeouts[:-1].mean() > 0.9 and "returns mean nothing" in found.notice


def test_next_observations_that_stand_nowhere_in_the_file_cut_nothing_that_is_marked():
    observations, _ = chained([30])
    marked = np.isin(np.arange(30), (9, 19, 29))
    elsewhere = np.random.default_rng(5).normal(size=observations.shape).astype(np.float32)
    found = find_ends(observations, elsewhere, np.zeros(30, bool), marked, None)
    np.testing.assert_array_equal(found.timeouts, marked)
    assert "nor any other" in found.notice


def test_rounding_is_no_jump_and_a_long_recording_is_not_cut():
    observations, following = chained([200])
    nothing = np.zeros(200, bool)
    close = following * np.float32(1 + 3e-7)
    assert not find_ends(observations, close, nothing, nothing.copy(), 50).timeouts.any()


def test_episodes_of_one_step_without_successors_are_one_clear_line(tmp_path):
    values = columns(20, timeout_rows=range(20))
    del values["next_observations"]
    data = jdp.data.load(write(tmp_path / "bandit.hdf5", values))
    with pytest.raises(UserError, match="each is an episode of its own"):
        jdp.data.transitions(data)
