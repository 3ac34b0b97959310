"""GoRL: the identity at first, and two peaks that one Gaussian cannot hold."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.errors import UserError
from jdp.learning.acting import OnPolicyConfig
from jdp.loops import Memory, train_online
from jdp.online import make
from jdp.online.gorl import GoRLConfig, decode, stage
from jdp.types import Spec, Stepped, Task

KEY = jax.random.key(0)
SPEC = Spec(2, 1, "peaks", 1)
PEAK = 0.6


def _reset(key):
    return (), jnp.zeros(2), jnp.zeros(0)


def _step(key, state, action):
    """Two equal peaks at +-`PEAK`, and nothing between them."""
    reward = jnp.exp(-0.5 * jnp.square((jnp.abs(action[0]) - PEAK) / 0.08))
    return (), Stepped(jnp.zeros(2), reward, jnp.ones((), bool), reward > 0.5)


PEAKS = Task(_reset, _step, SPEC)
TINY = GoRLConfig(
    acting=OnPolicyConfig(256, 2), refits=(4, 8), rollouts=2, good=0.3, hidden=(16,), critic_hidden=(16,),
    decoder_hidden=(64, 64), decoder_learning_rate=1e-3, fit_steps=2_000, fit_batch_size=256, epochs=2,
    minibatches=4,
)  # fmt: skip


def trained(config, updates):
    """What two seeds have learned, and the records of single updates."""
    journal, options = Memory(), {"key": KEY, "updates": updates, "seeds": 2, "chunk": 1}
    method = make(config, SPEC)
    return train_online(method, PEAKS, config.acting, journal=journal, **options), journal.records("online")


def explored(config, states):
    """`[2, 2000]`, what the seeds would do, and how often their decoders were fitted."""
    behaviour, shown = make(config, SPEC).behaviour, jnp.zeros((2000, 2))

    def one(key, state):
        decision = behaviour.act(key, state, (), shown, jnp.zeros((2000, 0)))[1]
        return decision.action[:, 0], stage(state, config)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(KEY, 2), states))


def test_the_decoder_is_the_identity_until_it_has_been_fitted():
    method, z = make(TINY, SPEC), jnp.linspace(-9.0, 9.0, 50)[:, None]
    state, observation = jax.jit(method.learner.init)(KEY, ()), jnp.ones((50, 2))
    decoded = jax.jit(lambda state: decode(state, observation, z, TINY, SPEC))
    np.testing.assert_array_equal(decoded(state), z)
    np.testing.assert_array_equal(decoded(state._replace(updates=jnp.int32(3))), z)
    assert (decoded(state._replace(updates=jnp.int32(4))) != z).all()


@pytest.mark.slow
def test_before_it_learns_ratios_are_one_and_actions_are_the_tanh_of_gaussian_draws():
    still = replace(TINY, learning_rate=0.0, epochs=1)
    states, (record,) = trained(still, 1)
    np.testing.assert_allclose(record["approximate_kl"], 0, atol=1e-6)
    np.testing.assert_allclose(record["clipped"], 0)
    actions, stages = explored(still, states)
    np.testing.assert_array_equal(stages, 0)
    u = np.arctanh(actions)
    np.testing.assert_allclose([u.mean(), u.std()], [0, 1], atol=0.05)
    rows = np.asarray(states.good)[:, 0]  # [2, kept, O + A], the best ones of the rollout
    assert rows.shape[1] == round(0.3 * 512)
    assert np.mean(np.abs(np.abs(np.tanh(rows[..., 2])) - PEAK) < 0.16) > 0.95


@pytest.mark.slow
def test_after_a_refit_both_of_two_peaks_hold_a_third_of_the_actions():
    """And the decoder moves in no other update; a Gaussian with as much on both has most of it between."""
    states, records = trained(TINY, 8)
    fitted = [np.min(record["decoder_loss"]) > 0 for record in records]
    assert fitted == [False, False, False, True, False, False, False, True]
    np.testing.assert_allclose(
        [r["decoder_loss"] for r, fit in zip(records, fitted, strict=True) if not fit], 0
    )
    actions, stages = explored(TINY, states)
    np.testing.assert_array_equal(stages, 2)
    for peak in (PEAK, -PEAK):
        assert (np.mean(np.abs(actions - peak) < 0.2, axis=1) > 0.3).all()
    assert (np.mean(np.abs(actions) < 0.3, axis=1) < 0.2).all()


def test_settings_that_leave_no_rollouts_for_a_decoder_are_refused():
    with pytest.raises(UserError, match=r"refits is \(4, 5\): each must come at least 2 updates"):
        replace(TINY, refits=(4, 5))
    with pytest.raises(UserError, match=r"good is 2"):
        replace(TINY, good=2)
