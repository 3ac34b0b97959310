"""Curricula and weights of groups against what they promise; novelty against ten lines of numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.learning.data_weights import averaged_success, by_difficulty, by_success, robust
from jdp.learning.novelty import novelty


def test_what_succeeds_now_and_then_is_learned_from_most():
    success = jnp.array([0.0, 0.1, 0.3, 0.5, 0.8, 0.9, 1.0])
    weights = by_success(success, least=0.02)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(weights / weights[3], [0.02, 0.51, 1, 1, 1, 0.51, 0.02], rtol=1e-4)


def test_averages_of_success_move_by_the_episodes_of_their_task():
    found = averaged_success(jnp.full(3, 0.5), jnp.array([0, 0, 2]), jnp.array([1.0, 1.0, 0.0]), rate=0.1)
    np.testing.assert_allclose(found, [1 - 0.5 * 0.9**2, 0.5, 0.45], rtol=1e-6)


@pytest.mark.parametrize(("progress", "count"), [(0.0, 2), (0.4, 4), (1.0, 6)])
def test_a_curriculum_opens_the_easiest_first(progress, count):
    difficulty = jnp.array([3.0, 9.0, 1.0, 7.0, 5.0, 2.0])
    weights = by_difficulty(difficulty, progress)
    np.testing.assert_allclose(np.sort(weights)[-count:], 1 / count, rtol=1e-6)
    assert set(np.flatnonzero(weights)) == set(np.argsort(difficulty)[:count].tolist())


def test_robust_weights_lead_to_the_least_worst_group():
    """One number for two groups, 9 of 10 rows at 0 and one at 1: the mean is .1, the least worst is .5."""
    place = jnp.array([0.0, 1.0])

    def one(carry, _):
        x, weights, mean = carry
        weights = robust(weights, jnp.square(x - place), 0.1)
        x = x - 0.1 * jnp.sum(weights * 2 * (x - place))
        return (x, weights, mean + 0.001 * x), None

    begun = jnp.zeros(()), jnp.array([0.9, 0.1]), jnp.zeros(())
    (x, weights, mean), _ = jax.jit(lambda begun: jax.lax.scan(one, begun, None, length=1000))(begun)
    np.testing.assert_allclose(mean, 0.5, atol=0.02)
    np.testing.assert_allclose([x, weights[0]], 0.5, atol=0.05)
    assert jnp.max(jnp.square(mean - place)) < 0.35 < 0.81  # the mean's worst group


def test_novelty_is_the_distance_to_the_nearest():
    rng = np.random.default_rng(0)
    x, archive = rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=(9, 2)).astype(np.float32)
    found = novelty(x, archive, neighbours=3, filled=jnp.array(7))
    gaps = np.sort(np.linalg.norm(x[:, None] - archive[None, :7], axis=-1), axis=1)[:, :3]
    np.testing.assert_allclose(found, gaps.mean(1), rtol=1e-5)
    few = novelty(x, archive, neighbours=3, filled=jnp.array(2))
    np.testing.assert_allclose(
        few, np.linalg.norm(x[:, None] - archive[None, :2], axis=-1).mean(1), rtol=1e-5
    )
    assert np.isinf(novelty(x, archive, neighbours=3, filled=jnp.array(0))).all()
    np.testing.assert_allclose(novelty(archive[:1], jnp.repeat(archive[:1], 3, axis=0), neighbours=3), 0)


def test_who_is_paid_for_novelty_sees_more_places():
    """Of eight places one is worth a little more: greed sees it alone, with a bonus all are seen."""
    angle = jnp.arange(8.0) * jnp.pi / 4
    places = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    worth = jnp.zeros(8).at[3].set(0.1)

    def visits(bonus):
        def one(carry, t):
            archive, seen = carry
            new = jnp.where(t > 0, novelty(places, archive, neighbours=2, filled=t), 0.0)
            at = jnp.argmax(worth + bonus * new)
            return (archive.at[t].set(places[at]), seen.at[at].add(1)), None

        start = jnp.zeros((32, 2)), jnp.zeros(8)
        return jax.lax.scan(one, start, jnp.arange(32))[0][1]

    none, some = jax.jit(jax.vmap(visits))(jnp.array([0.0, 1.0]))
    assert np.count_nonzero(none) == 1 and np.count_nonzero(some) == 8
