"""Weights of two policies: the honest split, what composition gives, and where it hurts."""

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.diffusion import exact, samplers
from jdp.diffusion.guidance import compose
from jdp.diffusion.schedules import karras
from jdp.evaluation import pairs, search_weights

STD, WITHIN = 0.16, 0.29
SIGMAS = karras(32)
heun = jax.jit(samplers.heun)
GRID = pairs(11)


@jax.jit
def _drawn(means, weights, episodes):
    own = [exact.gaussian(mean, STD) for mean in means]
    noise = jax.vmap(lambda e: jax.random.normal(jax.random.fold_in(jax.random.key(0), e), (1,)))(episodes)
    return samplers.heun(compose(own, weights), SIGMAS[0] * noise, SIGMAS)[:, 0]


def of(means):
    """Succeeds within .29 of 0, of policies whose actions are about `means`."""

    def play(weights, episodes):
        found = _drawn(jnp.array(means), jnp.array(weights), jnp.array(list(episodes)))
        return np.abs(np.asarray(found)) < WITHIN

    return play


def expected(means, second):
    """The share of `N((1 - w) m_1 + w m_2, std^2)` within .29 of 0."""
    found = NormalDist((1 - second) * means[0] + second * means[1], STD)
    return found.cdf(WITHIN) - found.cdf(-WITHIN)


SEARCH, HELD_OUT = range(2000), range(2000, 6000)


def test_opposite_biases_cancel_and_the_weight_is_found():
    """Alone 3 % and 25 % succeed, together 93 %: every weight as its closed form says."""
    means = (0.6, -0.4)
    found = search_weights(of(means), GRID, search=SEARCH, held_out=HELD_OUT)
    wanted = [expected(means, w) for w in GRID[:, 1]]
    np.testing.assert_allclose(found.scores, wanted, atol=0.035)
    assert found.chosen == pytest.approx((0.4, 0.6))
    assert found.held_out.mean() == pytest.approx(wanted[6], abs=0.02)
    np.testing.assert_allclose(found.parents.mean(1), [expected(means, 0), expected(means, 1)], atol=0.02)
    assert found.gain > 0.2 and found.held_out.shape == (4000,)


def test_with_one_that_knows_nothing_the_better_one_alone_is_best():
    found = search_weights(of((0.05, 5.0)), GRID, search=SEARCH, held_out=HELD_OUT)
    assert found.chosen == (1.0, 0.0) and found.gain == 0
    assert (np.diff(found.scores) <= 0).all() and found.scores[1] < found.scores[0] - 0.3


def test_scores_of_the_chosen_are_of_episodes_that_it_was_not_chosen_by():
    """Of pure chance the best of many seems good; anew it is as good as any."""

    def chance(weights, episodes):
        return [np.random.default_rng((e, round(100 * weights[1]))).normal() for e in episodes]

    found = search_weights(chance, pairs(101), search=range(20), held_out=range(20, 520))
    assert found.scores.max() > 0.4 and abs(found.held_out.mean()) < 0.15


def test_what_cannot_be_searched():
    for search, held_out, match in (
        ([0, 1], [1, 2], "1 episodes are in both"),
        ([], [1], "none of them may be empty"),
    ):
        with pytest.raises(UserError, match=match):
            search_weights(of((0, 0)), GRID, search=search, held_out=held_out)
    with pytest.raises(UserError, match="not finite"):
        search_weights(lambda w, e: [np.nan] * len(e), GRID, search=[0], held_out=[1])
    with pytest.raises(UserError, match="count is 1"):
        pairs(1)
