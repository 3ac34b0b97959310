"""Rows of a policy's own experience on the host: in order, with their ends, and those of a buffer too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_online import KEY, LIMIT, POLICY, TASK
from test_online_host import Hosted

from jdp.learning.acting import OffPolicyConfig
from jdp.loops.off_policy import empty, in_order, insert, keeping_all
from jdp.loops.roll_out import environments_for, roll_out


def test_rows_follow_each_other_and_say_where_episodes_end():
    told = []
    found, timeouts = roll_out(
        POLICY, Hosted, TASK.spec, {"w": jnp.ones(())}, key=KEY, rows=251, progress=told.append
    )
    assert environments_for(251, LIMIT) == 2 and told[-1] == 252
    steps, last = found.observation.T
    terminal = found.terminal == 1
    np.testing.assert_array_equal(found.action, np.full((251, 1), 0.5))
    np.testing.assert_array_equal(found.reward, np.full(251, 1.5, np.float32))
    np.testing.assert_array_equal(terminal, steps + 1 == last)
    cut = np.zeros(251, bool)
    cut[[125, 250]] = True  # where the stream of each environment ends
    np.testing.assert_array_equal(timeouts, ((steps + 1 == LIMIT) | cut) & ~terminal)
    inside = ~(terminal | timeouts)[:-1]
    np.testing.assert_array_equal(found.next_observation[:-1][inside], found.observation[1:][inside])
    np.testing.assert_array_equal(steps[1:][~inside], 0)  # after an end another episode begins
    again = roll_out(POLICY, Hosted, TASK.spec, {"w": jnp.ones(())}, key=KEY, rows=251)
    jax.tree.map(np.testing.assert_array_equal, again, (found, timeouts))


def test_few_episodes_are_cut():
    assert [environments_for(rows, 1000) for rows in (1, 39_999, 40_000, 10**6)] == [1, 1, 2, 16]


def test_the_rows_of_a_buffer_are_those_of_each_environment_in_the_order_of_time():
    came = np.array([(t, i) for t in range(4) for i in range(3)], np.float32)  # of three environments
    buffer = insert(empty(12, 2), jnp.asarray(came))
    np.testing.assert_array_equal(in_order(buffer, 1, 4)[:, 0], [0, 0, 0, 1])  # as they came
    np.testing.assert_array_equal(in_order(buffer, 3, 9), [(t, i) for i in range(3) for t in range(3)])
    with pytest.raises(ValueError, match="not in the buffer"):
        in_order(buffer, 3, 15)
    with pytest.raises(ValueError, match="not in the buffer"):  # the oldest have made room
        in_order(insert(buffer, jnp.zeros((3, 2))), 3, 9)


def test_a_buffer_that_keeps_all_is_as_large_as_what_is_seen():
    found = keeping_all(OffPolicyConfig(environments=3, warm_up=10, capacity=20), updates=5)
    assert (found.warm_up, found.capacity) == (12, 27)
