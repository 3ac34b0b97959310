"""Segments: values to go, offsets that stay in the episode, goals in hindsight."""

import jax
import numpy as np
import pytest

from jdp.data import Hindsight, SegmentDraw, batches, rows_of, segment_rows, values_to_go
from jdp.data.episodes import Origin, make_episodes
from jdp.data.segments import FAR, absorbing
from jdp.errors import UserError
from jdp.learning.scale import fit_scale, fit_span
from jdp.types import Spec

LENGTHS, TERMINAL = (7, 12, 9), (True, False, True)


@pytest.fixture(scope="module")
def episodes():
    """Observation = (episode, step): every row says where it stands."""
    n = sum(LENGTHS)
    ends = np.zeros(n, bool)
    ends[np.cumsum(LENGTHS) - 1] = True
    terminal = np.zeros(n, bool)
    terminal[np.cumsum(LENGTHS) - 1] = TERMINAL
    where = np.concatenate([[(e, t) for t in range(length)] for e, length in enumerate(LENGTHS)])
    rewards = np.random.default_rng(0).normal(size=n).astype(np.float32)
    observations = where.astype(np.float32)
    return make_episodes(
        observations,
        np.zeros((n, 1), np.float32),
        rewards,
        observations + np.array([0, 1], np.float32),
        terminal,
        ends & ~terminal,
        spec=Spec(2, 1),
        origin=Origin("test", "file", "", "", 0, ""),
    )


def test_values_to_go_are_discounted_sums_of_the_episode(episodes):
    values = values_to_go(episodes, 0.9, terminal_penalty=-10.0)
    for e, (start, stop) in enumerate(zip(episodes.starts, episodes.stops, strict=True)):
        rewards = episodes.rewards[start:stop].astype(np.float64)
        rewards[-1] += -10.0 if TERMINAL[e] else 0.0
        for t in range(stop - start):
            expected = sum(0.9**k * r for k, r in enumerate(rewards[t:]))
            assert values[start + t] == pytest.approx(expected, rel=1e-5)


def test_rows_follow_the_offsets_within_one_episode(episodes):
    rows = segment_rows(episodes, 5)
    batch = jax.jit(batches(SegmentDraw((0, 2, 4)), 256))(jax.random.key(0), rows)
    where = np.asarray(batch.observation)
    first = where[:, :1]
    assert (where[..., 0] == first[..., 0]).all()  # one episode
    length = np.array(LENGTHS)[first[:, 0, 0].astype(int)]
    last = np.where(np.array(TERMINAL)[first[:, 0, 0].astype(int)], length, length - 1)  # the absorbing row
    expected = np.minimum(first[..., 1] + np.array([0, 2, 4]), last[:, None])
    assert (where[..., 1] == expected).all()
    # Only beyond a terminal is a row repeated, and there the flag stands and nothing is earned.
    absorbed = where[..., 1] == length[:, None]
    assert absorbed.any()
    assert (np.asarray(batch.terminal)[absorbed] == 1).all()
    assert (np.asarray(batch.value)[absorbed] == 0).all()


def test_rows_before_the_drawn_one_do_not_leave_the_episode(episodes):
    """A history in front of an episode repeats its first row; goals are counted from the drawn row."""
    rows = segment_rows(episodes, 2)
    draw = batches(SegmentDraw((-2, -1, 0, 1), goal=(0, 1)), 512)
    batch = jax.device_get(jax.jit(draw)(jax.random.key(2), rows))
    present = batch.observation[:, 2]
    assert (batch.observation[..., 0] == present[:, None, 0]).all()
    for entry, offset in enumerate((-2, -1)):
        np.testing.assert_array_equal(batch.observation[:, entry, 1], np.maximum(present[:, 1] + offset, 0))
    assert (present[:, 1] == 0).any()
    np.testing.assert_array_equal((batch.goal - present)[:, 1], batch.distance)


def test_absorbing_rows_are_those_after_terminals(episodes):
    rows = segment_rows(episodes, 2)
    found = np.asarray(absorbing(rows))
    assert found.sum() == sum(TERMINAL)
    assert (rows.observation[found, 1] == np.array(LENGTHS)[rows.observation[found, 0].astype(int)]).all()
    span, scale = fit_span(rows._replace(value=rows.value - 1e3 * ~found)), fit_scale(rows)
    assert span.high < 0  # the 0 of a row that nobody can be in is no value
    np.testing.assert_allclose(scale.value.mean, rows.value[~found].mean(), rtol=1e-5)


def test_goals_lie_ahead_in_the_same_episode_at_the_distance_said(episodes):
    rows = segment_rows(episodes, 3)
    draw = batches(SegmentDraw((0, 1), goal=(0, 1), hindsight=Hindsight(0.3, 0.4, 0.3, reach=4)), 2000)
    batch = jax.device_get(jax.jit(draw)(jax.random.key(1), rows))
    gap = batch.goal - batch.observation[:, 0]
    near = batch.distance < FAR
    assert (gap[near, 0] == 0).all()
    assert (np.minimum(batch.distance, 4)[near] == batch.distance[near]).all()
    assert (gap[near, 1] == batch.distance[near]).all()
    assert near.mean() == pytest.approx(0.7, abs=0.03)
    assert (batch.distance == 1).mean() > 0.3
    assert (gap[~near, 0] != 0).any()


def test_without_goals_the_goal_is_empty(episodes):
    batch = batches(SegmentDraw((0, 1)), 4)(jax.random.key(0), segment_rows(episodes, 2))
    assert batch.goal.shape == (4, 0)
    assert (np.asarray(batch.distance) == FAR).all()


def test_segments_become_rows_of_their_own(episodes):
    rows = segment_rows(episodes, 5)
    batch = jax.device_get(batches(SegmentDraw((0, 1, 2, 3, 4)), 8)(jax.random.key(0), rows))
    again = batches(SegmentDraw((0, 1, 2, 3, 4)), 64)(jax.random.key(1), rows_of(batch))
    known = {x.tobytes() for x in batch.observation}
    assert {np.asarray(x).tobytes() for x in again.observation} <= known


def test_offsets_must_increase_and_hold_zero():
    for bad in ((), (1, 2), (0, 2, 2)):
        with pytest.raises(UserError, match="offsets"):
            SegmentDraw(bad)
