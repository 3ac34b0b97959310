"""Behaviour cloning against numpy, and a regression with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_reference import Adam, backward, forward, member, random_transitions, to_numpy

from jdp import UserError
from jdp.agents.bc import BCConfig, bc
from jdp.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
CONFIG = BCConfig(hidden=(8,), learning_rate=0.01, adam_eps=1e-3)
ROWS = 6


def transitions(seed, rows=ROWS):
    found = random_transitions(seed, rows, shift=2.0, scale=3.0)
    unread = jnp.full_like(found.reward, jnp.nan)  # nothing but observations and actions is read
    following = jnp.full_like(found.observation, jnp.nan)
    return found._replace(reward=unread, next_observation=following, terminal=unread)


@pytest.fixture(scope="module")
def agent():
    return bc(CONFIG, SPEC)


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.learner.update)


def test_two_updates_equal_numpy(agent, update):
    data = transitions(0, 100)
    state, adam = agent.learner.init(jax.random.key(0), data), Adam(CONFIG.learning_rate, CONFIG.adam_eps)
    observations = to_numpy(data.observation)
    mean, std, p = observations.mean(0), observations.std(0) + 1e-3, to_numpy(state.actor.params)
    for i in range(2):
        batch = transitions(20 + i)
        state, metrics = update(jax.random.key(i), state, batch)
        s, a = (to_numpy(batch.observation) - mean) / std, to_numpy(batch.action)
        pi = np.tanh(forward(p, s))
        np.testing.assert_allclose(metrics["bc_loss"], np.mean((pi - a) ** 2), rtol=1e-4)
        p = adam.step(p, backward(p, s, 2 * (pi - a) / pi.size * (1 - pi**2))[0])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), state.actor.params, p)


def test_vmapped_seeds_equal_single_runs(agent, update):
    keys, data = jax.random.split(jax.random.key(8), 2), transitions(8, 100)
    states = jax.jit(jax.vmap(agent.learner.init, in_axes=(0, None)))(keys, data)
    batches = jax.tree.map(lambda *x: jnp.stack(x), transitions(1), transitions(2))
    together, _ = jax.jit(jax.vmap(agent.learner.update))(keys, states, batches)
    for i in range(2):
        alone, _ = update(keys[i], member(states, i), member(batches, i))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), member(together, i), alone)


def test_it_learns_the_mean_action_of_each_state():
    """Two states, actions scattered around (.6, -.2) and (-.4, .5): the regression is their means."""
    agent = bc(BCConfig(hidden=(32,), learning_rate=5e-3), Spec(2, 2))
    index = jnp.arange(64) % 2
    action = jnp.array([[0.6, -0.2], [-0.4, 0.5]])[index]
    action = action + jax.random.uniform(jax.random.key(0), (64, 2), minval=-0.3, maxval=0.3)
    ones = jnp.ones(64)
    data = Transition(jnp.eye(2)[index], action, ones, jnp.eye(2)[index], ones)

    def step(state, key):
        return agent.learner.update(key, state, data)[0], None

    train = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 500))[0])
    policy = agent.target(train(agent.learner.init(jax.random.key(2), data)), jnp.eye(2))
    means = jnp.stack([action[::2].mean(0), action[1::2].mean(0)])
    np.testing.assert_allclose(policy.mean, means, atol=0.01)
    assert not policy.std.any()


def test_equal_settings_are_one_agent_and_mistakes_get_one_line(agent):
    assert bc(BCConfig(hidden=(8,), learning_rate=0.01, adam_eps=1e-3), Spec(3, 2)) is agent
    with pytest.raises(UserError, match="observations of 3 and actions of 2"):
        bc(CONFIG, Spec(4, 2)).learner.init(jax.random.key(0), transitions(0))
    with pytest.raises(UserError, match="learning_rate is -1"):
        BCConfig(learning_rate=-1)
