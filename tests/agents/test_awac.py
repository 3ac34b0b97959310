"""AWAC against numpy, its laws one by one, and a bandit with a known answer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_reference import (
    Adam,
    backward,
    critic_gradient,
    forward,
    member,
    polyak,
    q_values,
    random_transitions,
    to_numpy,
)

from jdp import UserError
from jdp.agents.awac import AWACConfig, awac
from jdp.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
SETTINGS: dict[str, Any] = dict(hidden=(8,), learning_rate=0.01, adam_eps=1e-3, tau=0.1, reward_scale=2.0)
CONFIG = AWACConfig(**SETTINGS, log_std_range=(-20.0, 50.0))
ROWS = 8


def transitions(seed, rows=ROWS):
    return random_transitions(seed, rows, shift=2.0, scale=3.0)


@pytest.fixture(scope="module")
def agent():
    return awac(CONFIG, SPEC)


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.learner.update)


@pytest.fixture(scope="module")
def state(agent, update):
    """After two updates, so that target and online critics differ."""
    state = agent.learner.init(jax.random.key(0), transitions(0, 100))
    for i in range(2):
        state, _ = update(jax.random.key(i), state, transitions(i))
    return state


def reference_update(p, adams, noise, batch, config):
    """Q, the actor, the target; `noise` is of the actions at s and at s'."""
    s, s2 = ((x - p["mean"]) / p["std"] for x in (batch.observation, batch.next_observation))
    a, n = batch.action, len(batch.reward)
    std = np.exp(np.clip(p["actor"]["log_std"], *config.log_std_range))
    mean, next_mean = (np.tanh(forward(p["actor"]["mean"], x)) for x in (s, s2))
    sampled = np.clip(mean + std * noise[:n], -1, 1)
    next_action = np.clip(next_mean + std * noise[n:], -1, 1)
    next_q = q_values(p["target_critic"], s2, next_action).min(axis=0)
    y = config.reward_scale * batch.reward + config.discount * (1 - batch.terminal) * next_q
    critic_loss = np.square(q_values(p["critic"], s, a) - y).mean(1).sum()
    p["critic"] = adams["critic"].step(p["critic"], critic_gradient(p["critic"], s, a, y))

    q, v = (q_values(p["critic"], s, x).min(axis=0) for x in (a, sampled))  # of the new Q
    w = np.minimum(np.exp((q - v) / config.temperature), config.weight_limit)[:, None]
    z = (a - mean) / std
    grads, _ = backward(p["actor"]["mean"], s, -w * z / std * (1 - mean**2) / n)
    log_prob = (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(1)
    grads = {"mean": grads, "log_std": (-w * (z**2 - 1)).mean(0)}
    p["actor"] = adams["actor"].step(p["actor"], grads)
    p["target_critic"] = polyak(p["target_critic"], p["critic"], config.tau)
    return {
        "actor_loss": -np.mean(w[:, 0] * log_prob),
        "advantage_mean": np.mean(q - v),
        "critic_loss": critic_loss,
    }


def test_two_updates_equal_numpy(agent, update):
    state = agent.learner.init(jax.random.key(0), transitions(0, 100))
    p = {
        "actor": to_numpy(state.actor.params),
        "critic": to_numpy(state.critic.params),
        "target_critic": to_numpy(state.target_critic),
        "mean": to_numpy(transitions(0, 100).observation).mean(0),
        "std": to_numpy(transitions(0, 100).observation).std(0) + 1e-3,
    }
    adams = {name: Adam(CONFIG.learning_rate, CONFIG.adam_eps) for name in ("actor", "critic")}
    for i in range(2):
        key, batch = jax.random.key(10 + i), transitions(20 + i)
        state, metrics = update(key, state, batch)
        noise = to_numpy(jax.random.normal(key, (2 * ROWS, 2)))
        for name, value in reference_update(p, adams, noise, to_numpy(batch), CONFIG).items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=5e-5)
    found = {
        "actor": state.actor.params,
        "critic": state.critic.params,
        "target_critic": state.target_critic,
    }
    for name, tree in found.items():
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), tree, p[name])


def test_the_target_follows_slowly(state, update):
    """target <- tau * online + (1 - tau) * target, with tau on the ONLINE network."""
    new, _ = update(jax.random.key(5), state, transitions(5))
    expected = polyak(to_numpy(state.target_critic), to_numpy(new.critic.params), CONFIG.tau)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), new.target_critic, expected)


def test_nothing_is_bootstrapped_beyond_a_terminal(state, update):
    batch = transitions(6)._replace(terminal=jnp.ones(ROWS))
    other = batch._replace(next_observation=batch.next_observation + 100.0)
    one, metrics = update(jax.random.key(6), state, batch)
    two, _ = update(jax.random.key(6), state, other)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    np.testing.assert_allclose(metrics["target_mean"], CONFIG.reward_scale * batch.reward.mean(), rtol=1e-5)


def test_critics_see_actions_within_the_box(state, update):
    """A policy far wider than the box: its samples are its corners, whatever the width."""
    values = []
    for log_std in (20.0, 30.0):
        params = {**state.actor.params, "log_std": jnp.full(2, log_std)}
        there = state._replace(actor=state.actor._replace(params=params))
        values.append(update(jax.random.key(7), there, transitions(7))[1])
    assert values[0]["target_mean"] == values[1]["target_mean"]
    assert values[0]["advantage_mean"] == values[1]["advantage_mean"]


def test_vmapped_seeds_equal_single_runs(agent, update):
    keys, data = jax.random.split(jax.random.key(8), 2), transitions(8, 100)
    states = jax.jit(jax.vmap(agent.learner.init, in_axes=(0, None)))(keys, data)
    batches = jax.tree.map(lambda *x: jnp.stack(x), transitions(1), transitions(2))
    together, _ = jax.jit(jax.vmap(agent.learner.update))(keys, states, batches)
    for i in range(2):
        alone, _ = update(keys[i], member(states, i), member(batches, i))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), member(together, i), alone)


def test_bandit_with_a_known_answer():
    """Q(a) = -2 (a - .5)^2, data around -.3: the Gaussian that fits `exp(Q / lambda)`-weighted data."""
    config = AWACConfig(temperature=1.0, hidden=(64,), learning_rate=5e-3, normalise_observations=False)
    agent = awac(config, Spec(1, 1))
    action = jnp.clip(-0.3 + 0.3 * jax.random.normal(jax.random.key(0), (256, 1)), -1, 1)
    reward = -2 * jnp.square(action[:, 0] - 0.5)
    ones = jnp.ones(len(action))
    data = Transition(ones[:, None], action, reward, ones[:, None], ones)

    def step(state, key):
        return agent.learner.update(key, state, data)[0], None

    train = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 1000))[0])
    found = agent.target(train(agent.learner.init(jax.random.key(2), data)), jnp.ones(1))
    a, weight = np.asarray(action[:, 0]), np.exp(np.asarray(reward) / config.temperature)
    mean = np.average(a, weights=weight)
    std = np.sqrt(np.average((a - mean) ** 2, weights=weight))
    assert a.mean() + 0.15 < mean < 0.5  # the answer lies on the way from the data to the optimum
    assert found.mean[0] == pytest.approx(mean, abs=0.05)
    assert found.std[0] == pytest.approx(std, abs=0.05)


def test_equal_settings_are_one_agent_and_mistakes_get_one_line(agent):
    assert awac(AWACConfig(**SETTINGS, log_std_range=(-20.0, 50.0)), Spec(3, 2)) is agent
    with pytest.raises(UserError, match="observations of 3 and actions of 2"):
        awac(CONFIG, Spec(4, 2)).learner.init(jax.random.key(0), transitions(0))
    with pytest.raises(UserError, match="temperature is 0"):
        AWACConfig(temperature=0)
