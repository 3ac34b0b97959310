"""Clusters: k-means and EM as limits, and draws that see one part of the data, the same in every process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.data import SegmentRows
from jdp.data.draws import WindowDraw, WindowRows
from jdp.learning.anchors import lloyd
from jdp.learning.clusters import LabelledDraw, PartDraw, clusters_of, part_of, soft_clusters

KEY = jax.random.key(0)
CENTRES = jnp.array([[-2.0, 0.0], [2.0, 0.0], [9.0, 9.0]])  # nothing is near the third
X = jnp.concatenate([jax.random.normal(KEY, (64, 2)) * 0.5 + c[None] for c in CENTRES[:2]])


def test_cold_and_without_memory_it_is_k_means():
    start = CENTRES + 0.3
    chances, moved = soft_clusters(X, start, temperature=1e-2, decay=0.0)
    np.testing.assert_allclose(moved, lloyd(X, start, 1), atol=1e-5)
    np.testing.assert_allclose(chances.sum(-1), 1, atol=1e-6)
    assert np.asarray(chances.max(-1)).min() > 0.99
    np.testing.assert_array_equal(moved[2], start[2])  # it stays


def test_at_the_width_of_a_mixture_it_is_expectation_maximisation_and_centres_follow_slowly():
    gap = np.square(np.asarray(X)[:, None] - np.asarray(CENTRES)).sum(-1)
    likelihood = np.exp(-gap / (2 * 0.5**2))
    chances = likelihood / likelihood.sum(1, keepdims=True)
    wanted = (chances.T @ np.asarray(X))[:2] / chances.sum(0)[:2, None]
    found, moved = soft_clusters(X, CENTRES, temperature=0.5, decay=0.9)
    np.testing.assert_allclose(found, chances, atol=1e-5)
    np.testing.assert_allclose(moved[:2], 0.9 * CENTRES[:2] + 0.1 * wanted, atol=1e-5)


def rows():
    """Windows of two kinds: about -3 and about 3, each of 20 rows, eight of them in a file."""
    x = np.concatenate([np.full((80, 2), -3.0), np.full((80, 2), 3.0)]).astype(np.float32)
    x += np.random.default_rng(0).normal(size=x.shape).astype(np.float32) * 0.1
    starts = np.concatenate([np.arange(60), 80 + np.arange(60)]).astype(np.int32)
    return WindowRows(x, starts, np.where(starts < 80, 79, 159).astype(np.int32))


class Given(WindowDraw):
    def prepare(self, episodes):
        return episodes


def test_a_part_is_drawn_from_one_cluster_and_parts_are_all_there_is():
    draws = [PartDraw(Given(8), 8, part, 2) for part in range(2)]
    prepared = [draw.prepare(rows()) for draw in draws]  # each knows nothing of the other
    means = []
    for draw, own in zip(draws, prepared, strict=True):
        windows = np.asarray(draw.take(own, np.asarray(draw.locate(KEY, draw.tables(own), 32))))
        means.append(windows.mean((1, 2)))
        np.testing.assert_array_equal(draw.view(own), Given(8).view(own))
    assert {np.sign(mean[0]) for mean in means} == {-1.0, 1.0}
    assert all((np.sign(mean) == np.sign(mean[0])).all() for mean in means)
    starts = np.concatenate([own.starts for own in prepared])
    np.testing.assert_array_equal(np.sort(starts), np.sort(rows().starts))
    with pytest.raises(UserError, match="parts are 0 to 1"):
        PartDraw(Given(8), 8, 2, 2)
    with pytest.raises(UserError, match="leave some empty"):
        PartDraw(Given(8), 8, 0, 2).prepare(
            WindowRows(np.zeros((9, 2), np.float32), np.zeros(2, int), np.full(2, 8))
        )


def test_a_router_learns_the_clusters_that_experts_see():
    draw = LabelledDraw(Given(8), 2)
    labelled = draw.prepare(rows())
    np.testing.assert_array_equal(labelled.cluster, clusters_of(rows(), 8, 2))
    windows, cluster = draw.take(
        labelled, draw.locate(KEY, jax.tree.map(jnp.asarray, draw.tables(labelled)), 32)
    )
    sign = np.sign(np.asarray(windows).mean((1, 2)))
    assert len({(s, int(c)) for s, c in zip(sign, cluster, strict=True)}) == 2


def test_segments_are_clustered_too_and_keep_their_rows():
    plain = rows()
    one = np.zeros(len(plain.rows), np.float32)
    given = SegmentRows(plain.rows[:, :1], plain.rows[:, 1:], one, one, one, *plain[1:], plain.starts)
    found = clusters_of(given, 8, 2)
    np.testing.assert_array_equal(found, clusters_of(plain, 8, 2))
    part = part_of(given, found == 0)
    assert len(part.starts) == len(part.last) == len(part.first) == 60
    np.testing.assert_array_equal(part.observation, given.observation)
    with pytest.raises(UserError, match="not of tuple"):
        clusters_of((1, 2), 8, 2)
