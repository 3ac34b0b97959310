"""Steps of a dataset as those of a task whose actions are chunks: one by one in a loop."""

from dataclasses import replace

import numpy as np
import pytest
from data_files import random_episodes

from jdp.data.chunked import ChunkDraw, chunked
from jdp.data.episodes import transitions
from jdp.errors import UserError
from jdp.types import unpack


@pytest.mark.parametrize("execute", [1, 3])
def test_chunks_are_those_of_a_loop(execute):
    data, rows = random_episodes(0), []
    for start, stop in zip(data.starts, data.stops, strict=True):
        for row in range(start, stop):
            end = min(row + execute, stop)  # one after the last step
            whole = end - row == execute and data.next_valid[end - 1]
            if not (whole or data.terminals[end - 1]):
                continue
            action = np.zeros((execute, 2), np.float32)
            action[: end - row] = data.actions[row:end]
            ended = float(data.terminals[end - 1])
            following = data.next_observations[end - 1]
            now = data.observations[row]
            rows.append(
                np.concatenate([now, action.ravel(), [data.rewards[row:end].sum()], following, [ended]])
            )
    packed = ChunkDraw(3, 2 * execute, execute=execute).prepare(data)
    np.testing.assert_allclose(packed, np.stack(rows), rtol=1e-6, atol=1e-6)
    assert packed.dtype == np.float32
    found = unpack(packed, 3, 2 * execute)
    assert found.terminal.any() and not found.terminal.all()


def test_chunks_of_one_are_the_steps_and_too_long_ones_are_refused():
    data = random_episodes(1)
    for one, other in zip(chunked(data, 1)[:5], transitions(data)[:5], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    with pytest.raises(UserError, match="is it known what came next"):
        chunked(replace(data, terminals=np.zeros_like(data.terminals)), 50)
