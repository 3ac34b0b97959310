"""K-means and the focal loss against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.learning.anchors import fit_anchors, focal_loss, lloyd, nearest

KEY = jax.random.key(0)
MIDDLES = np.array([[0, 0], [4, 0], [0, 4], [4, 4], [8, 2]], np.float32)
X = jnp.asarray(
    np.repeat(MIDDLES, 40, axis=0) + 0.3 * np.random.default_rng(0).normal(size=(200, 2)), jnp.float32
)


def by_hand(x, anchors, iterations):
    anchors = np.array(anchors, float)
    for _ in range(iterations):
        whose = ((x[:, None] - anchors) ** 2).sum(-1).argmin(1)
        for k in set(whose):
            anchors[k] = x[whose == k].mean(0)
    return anchors


def test_lloyd_is_numpys_and_anchors_of_nothing_stay():
    first = np.array([[0, 0], [1, 1], [3, 3], [90, 90]], np.float32)
    for iterations in (1, 3, 10):
        found = lloyd(X, jnp.asarray(first), iterations)
        np.testing.assert_allclose(
            found, by_hand(np.asarray(X, float), first, iterations), rtol=1e-4, atol=1e-4
        )
    np.testing.assert_array_equal(found[3], first[3])


def test_the_clusters_of_the_data_are_found_from_any_seed():
    """All seeds in one program, and each of them alone."""
    keys = jax.random.split(KEY, 8)
    found = jax.jit(jax.vmap(lambda key: fit_anchors(key, X, 5)))(keys)
    wanted = np.array([np.asarray(X)[40 * k : 40 * k + 40].mean(0) for k in range(5)])
    for anchors in np.asarray(found):
        order = np.asarray(nearest(jnp.asarray(wanted, jnp.float32), jnp.asarray(anchors)))
        assert sorted(order) == list(range(5))
        np.testing.assert_allclose(anchors[order], wanted, atol=1e-4)
    np.testing.assert_allclose(jax.jit(fit_anchors, static_argnums=2)(keys[3], X, 5), found[3], atol=1e-5)


def test_more_anchors_than_different_rows_are_some_rows_twice():
    few = jnp.asarray(MIDDLES[:2])
    found = np.asarray(fit_anchors(KEY, few, 4))
    assert np.isfinite(found).all() and {tuple(row) for row in found} == {(0.0, 0.0), (4.0, 0.0)}


def test_the_focal_loss_is_its_equation():
    logits = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    which = np.array([0, 3, 1, 1, 2, 0])
    p, right = 1 / (1 + np.exp(-logits)), np.eye(4)[which] == 1
    wanted = np.where(right, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)).sum(1)
    np.testing.assert_allclose(focal_loss(jnp.asarray(logits), jnp.asarray(which)), wanted, rtol=1e-4)
    half = focal_loss(jnp.asarray(logits), jnp.asarray(which), gamma=0.0, alpha=0.5)
    np.testing.assert_allclose(half, -0.5 * np.where(right, np.log(p), np.log(1 - p)).sum(1), rtol=1e-4)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5)])
def test_the_best_scores_rise_with_how_often_an_anchor_is_the_right_one(gamma, alpha):
    """So that the highest one is the most frequent; of cross-entropy they are the chances themselves."""
    chance = jnp.array([0.05, 0.15, 0.3, 0.5])
    grid = jnp.linspace(-6.0, 6.0, 2401)

    def expected(logit):  # each entry alone: [4]
        each = [focal_loss(logit[None, None], jnp.array([k]), gamma=gamma, alpha=alpha)[0] for k in (0, 1)]
        return chance * each[0] + (1 - chance) * each[1]  # class 1 of one entry: it is not the right one

    best = grid[np.argmin(np.asarray(jax.jit(jax.vmap(expected))(grid)), axis=0)]
    assert (np.diff(best) > 0.1).all()
    if gamma == 0:
        np.testing.assert_allclose(jax.nn.sigmoid(best), chance, atol=2e-3)
