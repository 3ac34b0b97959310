"""CQL against numpy, the sign of its conservative term, and two states with a known answer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sac_reference as reference
from agent_reference import Adam, to_numpy
from sac_reference import SMALL, SPEC, transitions

from jdp import UserError
from jdp.agents.conservative import soft_maximum
from jdp.agents.cql import CQLConfig, cql
from jdp.agents.sac import networks
from jdp.types import Spec, TanhNormal

CONFIG = CQLConfig(**SMALL, conservative_weight=0.7, temperature=1.5, actions=3, initialiser="fan_in")


def updates(config, count=3):
    """A jax run and a numpy run side by side."""
    agent = cql(config, SPEC)
    state, update = (
        jax.jit(agent.learner.init)(jax.random.key(0), transitions(0, 50)),
        jax.jit(agent.learner.update),
    )
    p, adams = reference.start(state.sac, config)
    log_multiplier, adam = np.float64(0), Adam(config.critic_learning_rate, config.adam_eps)
    for i in range(count):
        key, batch = jax.random.key(10 + i), transitions(20 + i)
        multiplier, gaps = np.exp(log_multiplier), []

        def penalty(params, actor, s, a, s2, key=key, gaps=gaps, multiplier=multiplier):
            high = reference.soft_maximum(params, actor, s, s2, jax.random.split(key, 3)[2], config)
            gap = high - reference.q_values(params, s, a)
            if config.gap_range is not None:
                gap = np.clip(gap, *config.gap_range)
            gaps.append(gap.mean())
            return config.conservative_weight * multiplier * gap.mean(1).sum()

        old = p["critic"]
        reference.update(p, adams, key, to_numpy(batch), config, penalty)
        s, s2 = ((x - p["mean"]) / p["std"] for x in to_numpy((batch.observation, batch.next_observation)))
        penalty(old, p["actor"], s, to_numpy(batch.action), s2)
        if config.target_gap is not None:
            slope = -config.conservative_weight * multiplier * (gaps[-1] - config.target_gap)
            log_multiplier = adam.step(log_multiplier, slope)
        state, metrics = update(key, state, batch)
        np.testing.assert_allclose(metrics["conservative_gap"], gaps[-1], rtol=1e-4)
    return state, p, log_multiplier


@pytest.fixture(scope="module")
def plain():
    # The reference draws again at every evaluation of the loss, so few updates of few draws.
    return updates(CONFIG, 2)


def test_updates_equal_numpy(plain):
    state, p, _ = plain
    reference.assert_equal(state.sac, p)
    assert state.log_multiplier.params == 0


def test_lagrangian_updates_equal_numpy():
    """With a target the multiplier moves, against the excess of the gap, and rows are clipped."""
    config = dataclasses.replace(CONFIG, target_gap=5.0, gap_range=(0.0, 3.0))
    state, p, log_multiplier = updates(config, 2)
    reference.assert_equal(state.sac, p)
    np.testing.assert_allclose(state.log_multiplier.params, log_multiplier, rtol=1e-4)
    assert log_multiplier < -0.01  # no gap exceeds 3 < 5: less pessimism is needed


def test_soft_maximum_is_of_all_three_kinds_at_the_state():
    """Q = <slope, a> + 100 s_0: at every row the term knows `s` only by its own Q and the policies."""
    config = dataclasses.replace(CONFIG, hidden=(), temperature=1.0)
    critic = networks(config, SPEC).critic
    kernel = jnp.array([100.0, 0.0, 0.0, 1.0, -2.0])[None, :, None] * jnp.ones((2, 1, 1))
    params = {"Dense_0": {"kernel": kernel, "bias": jnp.zeros((2, 1))}}
    batch = transitions(0)

    def actor(observation):
        return TanhNormal(jnp.zeros((len(observation), 2)), jnp.ones((len(observation), 2)))

    def high(params):
        return soft_maximum(params, critic, jax.random.key(0), batch, actor, actions=2000, temperature=1.0)

    # Every kind estimates n times the integral of exp Q over the box: 2 sinh(1) * 2 sinh(2) / 2.
    expected = 100 * batch.observation[:, 0] + np.log(3 * 2000 * 2 * np.sinh(1) * np.sinh(2))
    np.testing.assert_allclose(jax.jit(high)(params)[0], expected, atol=0.15)
    slope = jax.jit(jax.grad(lambda p: jnp.mean(high(p))))(params)["Dense_0"]["kernel"]
    # d/dc log sinh(c)/c = coth(c) - 1/c: gradients flow into the actions that the data lacks
    np.testing.assert_allclose(
        slope[:, 3:, 0].sum(0), [1 / np.tanh(1) - 1, -(1 / np.tanh(2) - 0.5)], atol=0.1
    )


def test_unseen_actions_fall_and_those_of_the_data_rise():
    """The whole update, where the conservative term outweighs the Bellman error."""
    config = CQLConfig(hidden=(32,), conservative_weight=1e3, critic_learning_rate=5e-3, initialiser="fan_in")
    agent = cql(config, SPEC)
    batch = transitions(1, 64)._replace(action=jnp.full((64, 2), 0.9))
    state = jax.jit(agent.learner.init)(jax.random.key(0), batch)
    after, _ = jax.jit(agent.learner.update)(jax.random.key(1), state, batch)
    s, critic = state.sac.standardise(batch.observation), networks(config, SPEC).critic

    def change(action):
        q = [critic.apply(x.sac.critic.params, s, action) for x in (state, after)]
        return jnp.mean(q[1] - q[0])

    assert change(batch.action) > 0.001
    assert change(jax.random.uniform(jax.random.key(2), (64, 2), minval=-1.0)) < -0.001
    assert change(agent.target(state, batch.observation).sample(jax.random.key(3))) < -0.001


def test_two_states_with_a_known_answer():
    rates = {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "alpha_learning_rate": 1e-2}
    config = CQLConfig(hidden=(32, 32), conservative_weight=0.05, tau=0.05, actions=4, **rates)
    agent = cql(config, Spec(2, 1))
    state = reference.trained(agent, reference.two_states(), 1000)
    np.testing.assert_allclose(agent.target(state, jnp.eye(2)).mean[:, 0], [0.5, -0.5], atol=0.2)


def test_settings():
    assert cql(dataclasses.replace(CONFIG), SPEC) is cql(CONFIG, SPEC)
    with pytest.raises(UserError, match=r"CQLConfig\.temperature is 0"):
        CQLConfig(temperature=0)
