"""Diversity of plans that keep a rule: how many different ones there are, in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.learning.diversity import diversity_logdet, expected_number, kernel, most_diverse

N, KEPT = 6, 0.3
Q2 = np.exp(2 * KEPT)


def test_equal_plans_are_one_and_far_ones_are_many():
    """`L = q^2 1 1^T` has one eigenvalue, `N q^2`; of plans far apart it is `q^2 I`."""
    kept, same = jnp.full(N, KEPT), jnp.ones((N, 4, 2))
    far = 100.0 * jnp.arange(float(N))[:, None, None] * same
    assert float(diversity_logdet(same, kept)) == pytest.approx(np.log1p(N * Q2), rel=1e-4)
    assert float(diversity_logdet(far, kept)) == pytest.approx(N * np.log1p(Q2), rel=1e-4)
    assert float(expected_number(same, kept)) == pytest.approx(N * Q2 / (1 + N * Q2), rel=1e-4)
    assert float(expected_number(far, kept)) == pytest.approx(N * Q2 / (1 + Q2), rel=1e-4)


def test_plans_that_break_the_rule_count_for_nothing():
    plans = jax.random.normal(jax.random.key(0), (N, 4, 2))
    robustness = jnp.array([0.5, -0.1, 0.2, 0.0, -2.0, 0.1])
    kept = np.array([0, 2, 5])
    assert float(diversity_logdet(plans, robustness)) == pytest.approx(
        float(diversity_logdet(plans[kept], robustness[kept])), rel=1e-5
    )
    assert float(diversity_logdet(plans, -jnp.ones(N))) == 0.0
    assert set(np.asarray(most_diverse(plans, robustness, 3)).tolist()) == set(kept.tolist())


def test_the_slope_drives_equal_plans_apart():
    plans = jnp.zeros((2, 1, 1)).at[1].set(0.1)
    slope = jax.grad(lambda x: diversity_logdet(x, jnp.full(2, KEPT)))(plans)
    assert float(slope[0, 0, 0]) < 0 < float(slope[1, 0, 0])


def test_the_greedy_choice_is_near_the_best():
    """Of all choices of three of six, by brute force; and a cluster is chosen from once."""
    plans = jnp.array([0.0, 0.01, 0.02, 3.0, 3.01, 6.0])[:, None]
    robustness = jnp.full(N, KEPT)
    chosen = np.asarray(most_diverse(plans, robustness, 3))
    assert {int(plans[i, 0]) for i in chosen} == {0, 3, 6}
    whole = np.asarray(kernel(plans, robustness), np.float64)

    def value(some):
        return np.linalg.slogdet(np.eye(len(some)) + whole[np.ix_(some, some)])[1]

    best = max(value(list(some)) for some in itertools.combinations(range(N), 3))
    assert value(list(chosen)) >= (1 - 1 / np.e) * best
