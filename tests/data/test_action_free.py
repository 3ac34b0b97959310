"""Episodes whose actions are not known."""

import numpy as np
import pytest
from data_files import random_episodes

from jdp import UserError
from jdp.data import SegmentDraw
from jdp.data.action_free import ActionShareDraw, with_actions, without_actions


def test_shares_are_spread_evenly_and_smaller_ones_lie_in_larger_ones():
    for share in (0.1, 0.5, 0.8):
        kept = with_actions(1000, share)
        assert kept.mean() == pytest.approx(share, abs=0.002)
        assert [kept[i : i + 100].mean() for i in range(0, 1000, 100)] == pytest.approx(
            [share] * 10, abs=0.02
        )
        np.testing.assert_array_equal(kept, kept & with_actions(1000, share + 0.1))
    assert with_actions(1000, 1.0).all() and not with_actions(1000, 0.0).any()


def test_whole_episodes_lose_their_actions_and_nothing_else():
    episodes = random_episodes(0)
    kept, found = with_actions(12, 0.5), without_actions(episodes, 0.5)
    for start, stop, known in zip(episodes.starts, episodes.stops, kept, strict=True):
        actions = found.actions[start:stop]
        np.testing.assert_array_equal(
            actions, episodes.actions[start:stop] if known else np.full_like(actions, np.nan)
        )
    np.testing.assert_array_equal(found.observations, episodes.observations)
    with pytest.raises(UserError, match="is none with actions: take a larger one"):
        without_actions(episodes, 0.0)


def test_a_draw_of_segments_brings_them():
    episodes, own = random_episodes(0), SegmentDraw((0, 1))
    draw = ActionShareDraw(own, 0.5)
    rows, full = draw.prepare(episodes), own.prepare(episodes)
    unknown = np.isnan(rows.action).any(axis=1)
    assert 0 < unknown.sum() < len(unknown)
    np.testing.assert_array_equal(rows.action[~unknown], full.action[~unknown])
    np.testing.assert_array_equal(rows.starts, full.starts)
    assert draw == ActionShareDraw(SegmentDraw((0, 1)), 0.5) and isinstance(hash(draw), int)
