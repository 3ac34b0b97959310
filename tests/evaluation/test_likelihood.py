"""Log densities against scipy's."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdp.evaluation import action_log_likelihood, interval
from jdp.types import Normal

O = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)  # noqa: E741
A = np.random.default_rng(1).uniform(-1, 1, (4, 5, 2)).astype(np.float32)


def actor(std):
    return lambda state, o: Normal(state * o[..., :2], jnp.full_like(o[..., :2], std))


@pytest.mark.parametrize("own, given, expected", [(0.0, 1.0, 1.0), (0.0, 0.3, 0.3), (0.2, 1.0, 0.2)])
def test_equals_scipy(own, given, expected):
    """A deterministic actor takes the given std, a stochastic one keeps its own."""
    found = action_log_likelihood(actor(own), jnp.float32(0.5), jnp.asarray(O), jnp.asarray(A), std=given)
    density = stats.norm.logpdf(A, 0.5 * O[..., :2], expected).sum(-1)
    np.testing.assert_allclose(found.per_transition, density, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.summary, interval(density.mean(1)), rtol=1e-4)


def test_only_valid_transitions_count():
    valid = np.ones((4, 5), bool)
    valid[0, 2:], valid[3] = False, False
    actions = np.where(valid[..., None], A, 1e6).astype(np.float32)
    found = action_log_likelihood(
        actor(0.0), jnp.float32(0.5), jnp.asarray(O), jnp.asarray(actions), valid=jnp.asarray(valid)
    )
    density = stats.norm.logpdf(A, 0.5 * O[..., :2], 1.0).sum(-1)
    assert np.isnan(found.per_transition[~valid]).all()
    rows = [density[0, :2].mean(), density[1].mean(), density[2].mean()]
    np.testing.assert_allclose(found.summary, interval(rows), rtol=1e-4)
