"""The ensemble as a simulator of a linear-Gaussian system: predictions, steps, mistakes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_system import CONFIG, NOISE, OFFSET, SPEC, fresh, means, predictor, system, trained

from jdp import UserError
from jdp.types import Spec, Transition
from jdp.world_models.ensemble import EnsembleConfig, ensemble
from jdp.world_models.termination import RULES, never
from jdp.world_models.training import split_holdout


@pytest.fixture(scope="module")
def learned():
    return trained(CONFIG, never, rows=16_000)


@pytest.mark.slow
def test_an_exact_linear_gaussian_system_is_learned(learned):
    test = system(9, 2000)
    said = predictor(CONFIG)(learned, test.observation, test.action)
    assert said.mean.shape == said.std.shape == (CONFIG.elites, 2000, 4)
    error = np.asarray(said.mean) - means(test.observation, test.action)
    # 12,800 rows, 500 weights: the mean within a quarter of the noise, its std within a tenth.
    assert (np.sqrt(np.mean(error**2, axis=(0, 1))) < 0.25 * NOISE).all()
    np.testing.assert_allclose(np.mean(said.std, axis=(0, 1)), NOISE, rtol=0.1)
    # On rows held out, what is left of the standardised targets is their noise.
    spread = np.asarray(learned.targets.std)
    np.testing.assert_allclose(learned.best_error, np.mean((NOISE / spread) ** 2), rtol=0.15)


def test_steps_are_draws_of_the_system(learned):
    model = ensemble(CONFIG, SPEC, never)
    test = system(10, 20_001)  # not a multiple of the elites
    carry = model.start(jnp.asarray(test.observation)[:, None], jnp.zeros((20_001, 0, 2)))
    step = jax.jit(model.step)
    carry, following, reward, terminal = step(jax.random.key(0), learned, carry, jnp.asarray(test.action))
    np.testing.assert_array_equal(carry, following)
    assert reward.shape == terminal.shape == (20_001,) and not np.any(terminal)
    drawn = np.concatenate([following, reward[:, None]], axis=1)
    left = drawn - means(test.observation, test.action)  # each row has the answer to its own question
    np.testing.assert_allclose(left.mean(axis=0) / NOISE, 0, atol=0.2)
    np.testing.assert_allclose(left.std(axis=0), NOISE, rtol=0.1)
    correlation = np.corrcoef(left.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.1
    # Exactly, they are draws of the mixture of the elites' predictions.
    said = predictor(CONFIG)(learned, test.observation, test.action)
    variance = np.mean(np.square(said.std), axis=0) + np.var(said.mean, axis=0)
    z = (drawn - np.mean(said.mean, axis=0)) / np.sqrt(variance)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.03)  # 4 standard errors
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.02)
    again = step(jax.random.key(0), learned, jnp.asarray(test.observation), jnp.asarray(test.action))
    np.testing.assert_array_equal(again[1], following)
    other = step(jax.random.key(1), learned, jnp.asarray(test.observation), jnp.asarray(test.action))
    assert not np.any(np.all(np.asarray(other[1]) == np.asarray(following), axis=1))


def constant(state, values, log_variance):
    """Members whose standardised mean is `values[m]` everywhere, in `best` only."""
    network = jax.tree.map(jnp.zeros_like, state.best["network"])
    members, width = network["Dense_1"]["bias"].shape
    bias = np.full((members, width), log_variance, np.float32)
    bias[:, :4] = np.asarray(values)[:, None]
    network["Dense_1"]["bias"] = jnp.asarray(bias)
    low = jnp.full((members, 4), -30.0)
    return state._replace(best={"network": network, "low": low, "high": -low})


def test_each_row_is_stepped_by_one_elite_and_all_as_often():
    state = constant(fresh(), [0.0, 1.0, 2.0, 3.0], log_variance=-20.0)
    state = state._replace(elites=jnp.array([3, 1], jnp.int32))
    model = ensemble(CONFIG, SPEC, never)
    observation = jnp.zeros((5, 3))

    def member(key):
        _, following, reward, _ = model.step(key, state, observation, jnp.zeros((5, 2)))
        changed = state.targets(jnp.concatenate([following, reward[:, None]], axis=1))
        return changed

    seen = np.asarray(jax.jit(jax.vmap(member))(jax.random.split(jax.random.key(0), 4000)))
    assert np.ptp(seen, axis=2).max() < 0.01  # all coordinates of a row are of one member
    which = np.rint(seen[..., 0]).astype(int)
    assert set(np.unique(which)) == {1, 3}
    np.testing.assert_allclose((which == 3).mean(axis=0), 0.5, atol=0.03)  # each row on its own
    assert np.ptp((which == 3).sum(axis=1)) <= 1 + 1e-6  # 5 rows among 2: 2 or 3 each


def test_predict_gives_the_elites_in_order_and_in_the_units_of_the_task():
    state = constant(fresh(), [0.0, 1.0, 2.0, 3.0], log_variance=np.log(0.25))
    state = state._replace(elites=jnp.array([2, 0], jnp.int32))
    observation = jnp.asarray(system(3, 6).observation)
    said = predictor(CONFIG)(state, observation, jnp.zeros((6, 2)))
    mean, std = np.asarray(state.targets.mean), np.asarray(state.targets.std)
    here = np.concatenate([observation, np.zeros((6, 1))], axis=1)
    np.testing.assert_allclose(said.mean[0], here + mean + 2 * std, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said.mean[1], here + mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said.std, np.broadcast_to(0.5 * std, (2, 6, 4)), rtol=1e-4)


@pytest.mark.slow
def test_a_terminal_head_learns_where_episodes_end():
    config = CONFIG
    state = trained(config, None, rows=6000)
    test = system(11, 4000)
    model = ensemble(config, SPEC, None)
    *_, terminal = jax.jit(model.step)(
        jax.random.key(0), state, jnp.asarray(test.observation), jnp.asarray(test.action)
    )
    assert set(np.unique(terminal)) == {0, 1}
    clear = np.abs(test.observation[:, 0] - OFFSET[0] - 0.5) > 0.4
    assert np.mean(np.asarray(terminal)[clear] == test.terminal[clear]) > 0.97
    np.testing.assert_allclose(np.mean(terminal), np.mean(test.terminal), atol=0.03)


def test_a_rule_ends_what_a_step_leads_to():
    spec = Spec(observation_dim=11, action_dim=3)
    rng = np.random.default_rng(0)
    rows = Transition(
        *(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((9, 11), (9, 3), 9, (9, 11), 9))
    )
    model = ensemble(CONFIG, spec, RULES["Hopper"])
    state = jax.jit(model.learner.init)(jax.random.key(0), rows)
    carry, action = rows.observation, rows.action
    _, following, _, terminal = jax.jit(model.step)(jax.random.key(0), state, carry, action)
    np.testing.assert_array_equal(terminal, RULES["Hopper"](carry, action, following).astype(jnp.float32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnsembleConfig(elites=8), "ensemble.elites is 8; it must lie between 1 and 7"),
        (lambda: EnsembleConfig(members=0), "ensemble.members is 0; it must be at least 1"),
        (lambda: EnsembleConfig(holdout_share=1.0), "ensemble.holdout_share is 1.0"),
        (lambda: EnsembleConfig(hidden=(64, 64)), "ensemble.decay has 5 values, but members have 3 layers"),
        (lambda: split_holdout(jax.random.key(0), 511, EnsembleConfig()), "511 transitions.*at most 255"),
        (
            lambda: ensemble(CONFIG, Spec(4, 2), never).learner.init(jax.random.key(0), system(0, 8)),
            "observations of 3 and actions of 2 numbers, but the ensemble was made for 4 and 2",
        ),
    ],
)
def test_mistakes_are_said_in_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_equal_settings_are_the_same_model():
    assert ensemble(CONFIG, SPEC, never) is ensemble(replace(CONFIG), Spec(3, 2), never)
    assert ensemble(CONFIG, SPEC, never).learner != ensemble(CONFIG, SPEC, None).learner
