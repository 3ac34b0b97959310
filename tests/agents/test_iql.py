"""IQL against numpy, its laws one by one, and a three-state problem with a known answer."""

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
from jdp.agents.iql import IQLConfig, iql
from jdp.learning.critics import value_loss
from jdp.learning.fitting import reward_scale
from jdp.networks.mlp import mlp, orthogonal
from jdp.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
CONFIG = IQLConfig(hidden=(8,), learning_rate=0.01, adam_eps=1e-3, tau=0.1, steps=10, reward_scale=2.0)
ROWS = 8


def transitions(seed, rows=ROWS):
    found = random_transitions(seed, rows)
    return found._replace(action=jnp.clip(2 * found.action, -1, 1))  # some exactly at the edge


@pytest.fixture(scope="module")
def agent():
    return iql(CONFIG, SPEC)


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.learner.update)


def reference_update(p, adams, batch, config):
    """V, the actor, Q, the target: one update of the authors' code in numpy."""
    s, s2 = batch.observation, batch.next_observation
    a, n = np.clip(batch.action, -(1 - 1e-5), 1 - 1e-5), len(batch.reward)
    q = q_values(p["target_critic"], s, a).min(axis=0)
    u = q - forward(p["value"], s)[:, 0]
    weight = np.where(u < 0, 1 - config.expectile, config.expectile)
    grads, _ = backward(p["value"], s, (-2 * weight * u / n)[:, None])
    p["value"] = adams["value"].step(p["value"], grads)

    advantage = q - forward(p["value"], s)[:, 0]  # of the new V
    w = np.minimum(np.exp(config.beta * advantage), config.weight_limit)[:, None]
    mean = np.tanh(forward(p["actor"]["mean"], s))
    std = np.exp(np.clip(p["actor"]["log_std"], *config.log_std_range))
    z = (a - mean) / std
    grads, _ = backward(p["actor"]["mean"], s, -w * z / std * (1 - mean**2) / n)
    log_prob = (-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(1)
    grads = {"mean": grads, "log_std": (-w * (z**2 - 1)).mean(0)}
    p["actor"] = adams["actor"].step(p["actor"], grads)

    next_v = forward(p["value"], s2)[:, 0]  # of the new V
    y = config.reward_scale * batch.reward + config.discount * (1 - batch.terminal) * next_v
    critic_loss = np.square(q_values(p["critic"], s, a) - y).mean(1).sum()
    p["critic"] = adams["critic"].step(p["critic"], critic_gradient(p["critic"], s, a, y))
    p["target_critic"] = polyak(p["target_critic"], p["critic"], config.tau)
    return {
        "value_loss": np.mean(weight * u**2),
        "actor_loss": -np.mean(w[:, 0] * log_prob),
        "critic_loss": critic_loss,
    }


def test_three_updates_equal_numpy(agent, update):
    state = agent.learner.init(jax.random.key(0), transitions(0))
    p = {
        "value": to_numpy(state.value.params),
        "actor": to_numpy(state.actor.params),
        "critic": to_numpy(state.critic.params),
        "target_critic": to_numpy(state.target_critic),
    }

    def cosine(t):
        return CONFIG.learning_rate * 0.5 * (1 + np.cos(np.pi * t / CONFIG.steps))

    adams = {name: Adam(CONFIG.learning_rate, CONFIG.adam_eps) for name in ("value", "critic")}
    adams["actor"] = Adam(cosine, CONFIG.adam_eps)
    for i in range(3):
        batch = transitions(20 + i)
        state, metrics = update(jax.random.key(i), state, batch)
        for name, value in reference_update(p, adams, to_numpy(batch), CONFIG).items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=5e-5)
    found = {
        "value": state.value.params,
        "actor": state.actor.params,
        "critic": state.critic.params,
        "target_critic": state.target_critic,
    }
    for name, tree in found.items():
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), tree, p[name])


def test_the_actor_stops_after_its_steps(agent, update):
    """The cosine has reached 0; a learning rate that no optimiser reads would not."""
    state = agent.learner.init(jax.random.key(0), transitions(0))
    for i in range(CONFIG.steps):
        state, _ = update(jax.random.key(i), state, transitions(i))
    after, _ = update(jax.random.key(0), state, transitions(0))
    jax.tree.map(np.testing.assert_array_equal, after.actor.params, state.actor.params)
    assert not np.array_equal(
        after.value.params["Dense_0"]["kernel"], state.value.params["Dense_0"]["kernel"]
    )


def test_nothing_is_bootstrapped_beyond_a_terminal(agent, update):
    state = agent.learner.init(jax.random.key(0), transitions(0))
    batch = transitions(6)._replace(terminal=jnp.ones(ROWS))
    other = batch._replace(next_observation=batch.next_observation + 100.0)
    one, metrics = update(jax.random.key(6), state, batch)
    two, _ = update(jax.random.key(6), state, other)
    jax.tree.map(np.testing.assert_array_equal, one.critic, two.critic)
    np.testing.assert_allclose(metrics["target_mean"], CONFIG.reward_scale * batch.reward.mean(), rtol=1e-5)


def test_expectile_is_asymmetric():
    """A value too low costs expectile, too high 1 - expectile; at 1/2 half the squared error."""
    value = mlp((1,))
    params = {"Dense_0": {"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}}  # V = 0

    def loss(q, expectile):
        return value_loss(params, jnp.ones((1, 1)), jnp.array([q]), value=value, expectile=expectile)[0]

    assert loss(2.0, 0.7) == pytest.approx(0.7 * 4)
    assert loss(-2.0, 0.7) == pytest.approx(0.3 * 4)
    assert loss(2.0, 0.5) == loss(-2.0, 0.5) == pytest.approx(2)


def test_three_states_with_a_known_answer():
    """0 -> 1 -> goal by going right (+.8); left ends the task with nothing. Expectile .9, discount .9.

    V of two equally frequent values lo < hi is their expectile, .1 lo + .9 hi: V(1) = .9,
    Q(0, right) = .81, V(0) = .729; and the policy goes right.
    """
    config = IQLConfig(hidden=(32,), learning_rate=5e-3, expectile=0.9, beta=10.0, discount=0.9, tau=0.05)
    agent = iql(config, Spec(3, 1))
    one_hot = jnp.eye(3)
    data = Transition(
        observation=one_hot[jnp.array([0, 0, 1, 1])],
        action=jnp.array([[0.8], [-0.8], [0.8], [-0.8]]),
        reward=jnp.array([0.0, 0.0, 1.0, 0.0]),
        next_observation=one_hot[jnp.array([1, 2, 2, 2])],
        terminal=jnp.array([0.0, 1.0, 1.0, 1.0]),
    )
    data = jax.tree.map(lambda x: jnp.tile(x, (8,) + (1,) * (x.ndim - 1)), data)

    def step(state, key):
        return agent.learner.update(key, state, data)[0], None

    train = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 1000))[0])
    state = train(agent.learner.init(jax.random.key(0), data))
    v = mlp((32, 1)).apply(state.value.params, one_hot[:2])[:, 0]
    np.testing.assert_allclose(v, [0.729, 0.9], atol=0.03)
    assert jnp.all(agent.target(state, one_hot[:2]).mean > 0.6)


def test_vmapped_seeds_equal_single_runs(agent, update):
    keys = jax.random.split(jax.random.key(8), 2)
    states = jax.jit(jax.vmap(agent.learner.init, in_axes=(0, None)))(keys, transitions(8))
    batches = jax.tree.map(lambda *x: jnp.stack(x), transitions(1), transitions(2))
    together, _ = jax.jit(jax.vmap(agent.learner.update))(keys, states, batches)
    for i in range(2):
        alone, _ = update(keys[i], member(states, i), member(batches, i))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), member(together, i), alone)


def test_std_knows_no_state_and_is_clipped(agent):
    state = agent.learner.init(jax.random.key(0), transitions(0))
    params = {**state.actor.params, "log_std": jnp.array([-100.0, 100.0])}
    policy = agent.target(state._replace(actor=state.actor._replace(params=params)), jnp.ones((4, 3)))
    np.testing.assert_allclose(policy.std, np.tile(np.exp([-5.0, 2.0]), (4, 1)), rtol=1e-6)


def test_reward_scale():
    assert reward_scale([100.0, 300.0, 200.0]) == pytest.approx(5.0)
    with pytest.raises(UserError, match="all episode returns"):
        reward_scale([3.0, 3.0])
    with pytest.raises(UserError, match="all episode returns"):  # equal but for the order of float32 sums
        reward_scale(np.float32([50_025.0, 50_025.004]))


@pytest.mark.parametrize("shape", [(64, 64), (11, 64), (64, 1)])
def test_orthogonal_weights(shape):
    draw = jax.vmap(lambda key: orthogonal(key, shape))
    for w in np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(0), 3))):
        gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
        np.testing.assert_allclose(gram, 2 * np.eye(min(shape)), atol=1e-4)


def test_returns_that_are_equal_but_for_rounding_say_nothing_about_a_scale():
    rewards = np.concatenate([np.random.default_rng(0).uniform(0, 1, 100), [1e3] * 10])
    orders = [np.random.default_rng(i).permutation(rewards) for i in range(30)]
    returns = [float(np.cumsum(order)[-1]) for order in orders]  # sum() of Python 3.12 rounds once
    assert np.ptp(returns) > 0
    with pytest.raises(UserError, match="returns of the dataset are equal"):
        reward_scale(returns)
