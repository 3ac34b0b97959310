"""Advantages, the clipped surrogate and epochs of PPO against closed forms and numpy; moments that grow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdp.learning.optimiser import begin
from jdp.learning.ppo import PPOConfig, advantages, clipped_surrogate, epochs, normalised
from jdp.learning.running import no_moments, seen

KEY = jax.random.key(0)


def rollout(seed, steps=12, count=3):
    rng = np.random.default_rng(seed)
    reward, value, following = rng.normal(size=(3, steps, count)).astype(np.float32)
    terminal = rng.random((steps, count)) < 0.2
    return reward, value, following, terminal, terminal | (rng.random((steps, count)) < 0.2)


def by_hand(reward, value, following, terminal, ended, discount, trace):
    found = np.zeros_like(reward)
    for n in range(reward.shape[1]):
        later = 0.0
        for t in reversed(range(len(reward))):
            delta = reward[t, n] + discount * following[t, n] * (not terminal[t, n]) - value[t, n]
            later = delta + discount * trace * later * (not ended[t, n])
            found[t, n] = later
    return found


@pytest.mark.parametrize("trace", [0.0, 0.9, 1.0])
def test_advantages_flow_back_within_episodes_and_are_bootstrapped_where_time_ran_out(trace):
    rows = rollout(0)
    found = advantages(*rows, discount=0.9, trace=trace)
    np.testing.assert_allclose(found.advantage, by_hand(*rows, 0.9, trace), atol=1e-5)
    np.testing.assert_allclose(found.target, found.advantage + rows[1], atol=1e-6)


def test_with_a_trace_of_one_the_critics_target_is_the_return():
    reward = np.arange(1.0, 5.0, dtype=np.float32)[:, None]
    value, ended = np.full_like(reward, 7.0), np.array([[0], [0], [0], [1]], bool)
    to_go = np.array([1 + 0.5 * (2 + 0.5 * (3 + 0.5 * 4)), 2 + 0.5 * (3 + 0.5 * 4), 3 + 0.5 * 4, 4.0])
    died = advantages(reward, value, value, ended, ended, discount=0.5, trace=1.0)
    np.testing.assert_allclose(died.target[:, 0], to_go)
    cut = advantages(reward, value, value, ended & False, ended, discount=0.5, trace=1.0)
    np.testing.assert_allclose(cut.target[:, 0] - to_go, 7 * 0.5 ** np.arange(4, 0, -1))


def test_the_surrogates_gradient_is_the_policy_gradient_until_a_ratio_is_clipped():
    old, advantage = jnp.zeros(4), jnp.array([1.0, 1.0, -1.0, -1.0])
    at = lambda log_prob: clipped_surrogate(log_prob, old, advantage, 0.2)[0]  # noqa: E731
    np.testing.assert_allclose(jax.grad(at)(old), -advantage / 4)
    moved = jnp.array([0.5, -0.5, 0.5, -0.5])  # beyond the clip: only what made things worse pulls back
    pull = jax.grad(at)(moved)
    np.testing.assert_allclose(pull, [0, -np.exp(-0.5) / 4, np.exp(0.5) / 4, 0], rtol=1e-6)
    metrics = clipped_surrogate(moved, old, advantage, 0.2)[1]
    assert metrics["clipped"] == 1
    np.testing.assert_allclose(metrics["approximate_kl"], np.mean(np.exp(moved) - 1 - moved), rtol=1e-6)


def test_an_epoch_sees_every_row_once_and_stops_where_the_policy_has_moved_too_far():
    rows = jnp.arange(12.0)

    def loss(params, row):  # its gradient is the sum of the rows
        total = params * jnp.sum(row)
        return total, {"loss": total, "approximate_kl": jnp.float32(1.0)}

    learn = jax.jit(
        lambda config, key: epochs(key, begin(sgd, jnp.zeros(())), rows, loss, config, sgd), static_argnums=0
    )
    sgd = optax.sgd(1.0)
    config = PPOConfig(epochs=3, minibatches=4)
    np.testing.assert_allclose(learn(config, KEY)[0].params, -3 * 66)
    once = learn(PPOConfig(epochs=3, minibatches=4, target_kl=0.5), KEY)[0].params
    assert -33 <= once < 0  # three of the rows
    assert learn(PPOConfig(epochs=3, minibatches=4, target_kl=1.5), KEY)[0].params == -3 * 66
    orders = {
        float(learn(PPOConfig(epochs=1, minibatches=4, target_kl=0.5), jax.random.key(s))[0].params)
        for s in range(6)
    }
    assert len(orders) > 1


def test_normalised_advantages():
    x = normalised(jnp.array([1.0, 2.0, 6.0]))
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-6)


def test_running_moments_do_not_depend_on_how_rows_are_cut():
    rows = np.random.default_rng(0).normal(5, [1, 30], (60, 2)).astype(np.float32)
    at_once, moments = seen(no_moments(2), rows), no_moments(2)
    for part in np.split(rows, [1, 8, 40]):
        moments = seen(moments, part.reshape(-1, 1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), moments, at_once)
    affine = moments.affine()
    np.testing.assert_allclose([affine.mean, affine.std], [rows.mean(0), rows.std(0)], rtol=1e-5)
    assert (no_moments(2).affine()(rows) == rows).all()
