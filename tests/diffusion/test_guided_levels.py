"""Guidance with a level per time step: equal levels are one level, and steps that do not touch keep apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.diffusion import exact
from jdp.diffusion import guidance as g
from jdp.diffusion.flow_maps import hold_map
from jdp.types import Normal, bind

B, T, O, A = 3, 5, 3, 2  # noqa: E741 (one letter a dimension, as in the docstrings)
D = T  # what is aligned from the right would pass unseen
BASE = exact.gaussian(0.2, np.array([1.0, 0.5, 0.8, 0.3, 1.2]))
OTHER = exact.gaussian(-0.5, 0.7)
X = 2 * jax.random.normal(jax.random.key(0), (B, T, D))
KNOWN = jax.random.normal(jax.random.key(1), (B, T, D))
ROWS = jnp.array([0.1, 1.0, 30.0])
STEPS = jnp.exp(jax.random.normal(jax.random.key(2), (B, T)))
FIRST = np.arange(T)[None, :, None] == 0  # whole time steps
PART = FIRST & (np.arange(D)[None, None] < O)  # some channels of them


def _policy(w, observation):
    mean = jnp.tanh(observation @ w)
    return Normal(mean, jnp.full_like(mean, 0.4))


def _log_prob(w, observation, action):
    return _policy(w, observation).log_prob(action)


def _value(w, x, sigma):
    return jnp.sum(w[None, None] * x, axis=(1, 2)) + 0.0 * sigma


W = jax.random.normal(jax.random.key(3), (O, A))
POLICY, LOG_PROB = bind(_policy, W), bind(_log_prob, W)
VALUE = bind(_value, jnp.linspace(-1.0, 1.0, D))
SIZES = {"observation_dim": O, "action_dim": A}
SIGMAS = jnp.append(jnp.geomspace(40.0, 0.05, 12), 0.0)
GUIDED = {
    "plain": BASE,
    "hold": g.hold(BASE, KNOWN, PART),
    "hold_steps": g.hold(BASE, KNOWN, FIRST),
    "inpaint": g.inpaint(BASE, KNOWN, jnp.broadcast_to(FIRST, X.shape)),
    "condition": g.condition(BASE, KNOWN, jnp.broadcast_to(FIRST, X.shape)),
    "classifier_free": g.classifier_free(BASE, OTHER, 1.7),
    "doubled": g.classifier_free_doubled(BASE, 1.7),
    "policy": g.policy_guided(BASE, POLICY, 1.3, **SIZES),
    "policy_jacobian": g.policy_guided(BASE, POLICY, 1.3, covariance="jacobian", **SIZES),
    "policy_stopped": g.policy_guided(BASE, POLICY, 1.3, at="denoised_stopped", **SIZES),
    "reference": g.reference_guided(BASE, LOG_PROB, 0.3, SIGMAS, **SIZES),
    "value": g.value_guided(BASE, VALUE, 0.7),
    "value_jacobian": g.value_guided(BASE, VALUE, 0.7, covariance="jacobian"),
    "value_noised": g.value_guided(BASE, VALUE, 0.7, point="noised"),
}
# Of these a time step does not depend on the others.
APART = [n for n in GUIDED if n not in ("condition", "policy_jacobian")]


@pytest.fixture(scope="module")
def run():
    return jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


@pytest.mark.parametrize("name", list(GUIDED))
def test_equal_levels_are_one_level(run, name):
    one = run(GUIDED[name], X, ROWS)
    each = run(GUIDED[name], X, jnp.repeat(ROWS[:, None], T, 1))
    np.testing.assert_allclose(each, one, rtol=1e-5, atol=1e-5)
    assert name in ("plain", "doubled") or np.abs(np.asarray(one - BASE(X, ROWS))).max() > 1e-3


@pytest.mark.parametrize("name", APART)
def test_every_time_step_is_guided_at_its_level(run, name):
    found = run(GUIDED[name], X, STEPS)
    for t in range(T):  # as if the whole row had it
        np.testing.assert_allclose(
            found[:, t], run(GUIDED[name], X, STEPS[:, t])[:, t], rtol=1e-4, atol=1e-5, err_msg=str(t)
        )


def test_whole_steps_that_are_held_keep_a_level_per_step():
    seen = []

    def spy(x, sigma):
        seen.append(sigma)
        return x

    for mask, sigma in [(FIRST, STEPS), (PART, STEPS), (FIRST, ROWS)]:
        g.hold(spy, KNOWN, mask)(X, sigma)
    assert [s.shape for s in seen] == [(B, T), (B, T, D), (B, T, D)]
    np.testing.assert_array_equal(seen[0], STEPS.at[:, 0].set(0.0))
    np.testing.assert_array_equal(seen[1][:, 0], jnp.where(PART[:, 0], 0.0, STEPS[:, :1]))


def test_a_flow_map_with_held_entries():
    flow = hold_map(exact.gaussian_map(0.2, 0.7), KNOWN, PART)
    found = flow(X, STEPS, 0.5 * STEPS)
    np.testing.assert_array_equal(found[:, 0, :O], KNOWN[:, 0, :O])
    for t in range(1, T):
        np.testing.assert_allclose(found[:, t], flow(X, STEPS[:, t], 0.5 * STEPS[:, t])[:, t], rtol=1e-5)
