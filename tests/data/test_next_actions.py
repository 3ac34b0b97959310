"""Next actions are those of the same episode, on episodes made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from data_files import ORIGIN, random_episodes

from jdp.data import transitions
from jdp.data.episodes import make_episodes
from jdp.types import Spec, Transition, pack, unpack

# Rows 0-2 end in a terminal, 3-5 in a time limit, 6 is a terminal alone, 7-8 end with the file.
TERMINAL, TIMEOUT, ROWS = (2, 6), (5,), 9
ACTIONS = np.linspace(-0.9, 0.9, 2 * ROWS, dtype=np.float32).reshape(ROWS, 2)


def episodes(*, with_next_observations=True):
    terminals, timeouts = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    terminals[list(TERMINAL)], timeouts[list(TIMEOUT)] = True, True
    observations = np.arange(ROWS, dtype=np.float32)[:, None]
    return make_episodes(
        observations,
        ACTIONS,
        np.ones(ROWS, np.float32),
        observations + 1 if with_next_observations else None,
        terminals,
        timeouts,
        spec=Spec(1, 2),
        origin=ORIGIN,
    )


@pytest.mark.parametrize("with_next_observations", [True, False])
def test_no_next_action_crosses_an_episode(with_next_observations):
    data = transitions(episodes(with_next_observations=with_next_observations), next_actions=True)
    # The steps that a time limit (5) or the end of the file (8) cut have no next action: left out.
    np.testing.assert_array_equal(data.observation[:, 0], [0, 1, 2, 3, 4, 6, 7])
    zero = np.zeros(2)
    expected = [ACTIONS[1], ACTIONS[2], zero, ACTIONS[4], ACTIONS[5], zero, ACTIONS[8]]
    np.testing.assert_array_equal(data.next_action, expected)
    np.testing.assert_array_equal(data.terminal, [0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(data.action, ACTIONS[[0, 1, 2, 3, 4, 6, 7]])


def test_without_next_actions_timeouts_stay():
    data = transitions(episodes())
    assert data.next_action is None and len(data.reward) == ROWS


@pytest.mark.parametrize("seed", range(5))
def test_random_episodes_one_by_one(seed):
    data = random_episodes(seed)
    rows, following = [], []
    for start, stop in zip(data.starts, data.stops, strict=True):
        for row in range(start, stop - 1):
            rows.append(row)
            following.append(data.actions[row + 1])
        if data.terminals[stop - 1]:
            rows.append(stop - 1)
            following.append(np.zeros(2))
    found = transitions(data, next_actions=True)
    np.testing.assert_array_equal(found.observation[:, 0], rows)
    np.testing.assert_array_equal(found.next_action, following)


def test_packed_rows_keep_their_next_actions():
    data = transitions(episodes(), next_actions=True)
    found = unpack(pack(Transition(*map(jnp.asarray, data))), 1, 2)
    for name, x, y in zip(Transition._fields, found, data, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)
