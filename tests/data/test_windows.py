"""Windows against an enumeration by hand."""

import numpy as np
import pytest
from data_files import ORIGIN, columns, random_episodes

from jdp.data import left_out, left_out_notice, padded_rows, windows
from jdp.data.episodes import make_episodes
from jdp.errors import UserError
from jdp.types import Spec


def indices(found, length):
    return np.minimum(found.starts[:, None] + np.arange(length), found.last[:, None])


def enumerate_windows(data, length, stride):
    """Windows as lists of rows of the dataset, -1 - row for the pad after a terminal row."""
    found = []
    for start, stop in zip(data.starts, data.stops, strict=True):
        terminal = data.terminals[stop - 1]
        for first in range(start, stop, stride):
            rows = list(range(first, min(first + length, stop)))
            if len(rows) == length or terminal:
                found.append(rows + [-stop] * (length - len(rows)))
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("length", "stride"), [(1, 1), (4, 1), (7, 3), (18, 2), (25, 2)])
def test_windows_equal_their_enumeration(seed, length, stride):
    data = random_episodes(seed)
    rows = padded_rows(data)
    expected = enumerate_windows(data, length, stride)
    if not expected or length > data.lengths.max():  # a window of nothing but pads teaches nothing
        with pytest.raises(UserError):
            windows(data, length, stride=stride)
        return
    index = indices(windows(data, length, stride=stride), length)
    # observations[:, 0] is the number of the row; a pad holds 100 + that of its terminal.
    found = np.where(rows.pad[index], -(rows.observation[index, 0] - 100) - 1, rows.observation[index, 0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(5))
def test_windows_never_cross_an_episode(seed):
    data = random_episodes(seed, episodes=40)
    episode = np.repeat(np.arange(40), data.lengths + data.terminated)
    index = indices(windows(data, 5), 5)
    np.testing.assert_array_equal(episode[index], episode[index[:, :1]].repeat(5, 1))


def test_a_terminal_stands_at_every_position_equally_often():
    length = 6
    data = random_episodes(3, episodes=60)
    index = indices(windows(data, length), length)
    onset = np.diff(padded_rows(data).terminal[index], axis=1, prepend=0.0) > 0
    # Equally often but for episodes too short to have so many steps before their terminal.
    expected = [(data.terminated & (data.lengths > position)).sum() for position in range(length)]
    np.testing.assert_array_equal(onset.sum(0), expected)
    assert onset.sum(0).min() > 0


def test_the_share_of_terminals_per_position():
    length = 6
    data = random_episodes(4, episodes=60)
    flags = padded_rows(data).terminal[indices(windows(data, length), length)]
    brute = [[float(r < 0 or data.terminals[r]) for r in rows] for rows in enumerate_windows(data, length, 1)]
    np.testing.assert_array_equal(flags.mean(0), np.mean(np.asarray(brute, np.float32), axis=0))


def test_pad_rows_absorb():
    data = random_episodes(0)
    rows = padded_rows(data)
    last = data.stops[data.terminated] - 1
    assert rows.pad.sum() == len(last) and len(rows.pad) == len(data) + len(last)
    np.testing.assert_array_equal(rows.observation[rows.pad], data.next_observations[last])
    assert not rows.action[rows.pad].any() and not rows.reward[rows.pad].any()
    assert (rows.terminal[rows.pad] == 1).all()
    kept = ~rows.pad
    np.testing.assert_array_equal(rows.observation[kept], data.observations)
    np.testing.assert_array_equal(rows.action[kept], data.actions)
    np.testing.assert_array_equal(rows.terminal[kept], data.terminals)


def test_a_pad_without_a_known_successor_repeats_the_observation():
    values = columns(4, terminal_rows=[3]) | {"next_observations": None}
    rows = padded_rows(make_episodes(**values, spec=Spec(3, 2), origin=ORIGIN))
    np.testing.assert_array_equal(rows.observation[-1], values["observations"][-1])


def test_no_usable_window():
    data = make_episodes(**columns(7, timeout_rows=[2, 6]), spec=Spec(3, 2), origin=ORIGIN)
    message = r"longest of the 2 episodes has 4 steps.* horizon 5.*choose a horizon <= 4"
    with pytest.raises(UserError, match=message):
        windows(data, 5)
    assert len(windows(data, 4).starts) == 1
    with pytest.raises(UserError, match="length >= 1"):
        windows(data, 0)
    with pytest.raises(UserError, match="stride >= 1"):
        windows(data, 2, stride=0)


@pytest.mark.parametrize("length", (1, 3, 8, 15, 20))
def test_rows_in_no_window_are_counted(length):
    data = random_episodes(4, episodes=30)
    found = windows(data, length)
    seen = indices(found, length)
    rows = np.setdiff1d(np.flatnonzero(~padded_rows(data).pad), seen)  # the pads stand for no row
    assert left_out(data, length) == len(rows)
    said = left_out_notice(data, length)
    assert (said == "") == (len(rows) == 0) and (not said or f"{len(rows):,} of {len(data):,} rows" in said)
