"""TD3+BC against numpy, its laws one by one, and a bandit with a known answer."""

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
from jdp.agents import make
from jdp.agents.iql import IQLConfig
from jdp.agents.td3_bc import TD3BCConfig, td3_bc
from jdp.data import TransitionDraw
from jdp.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
# A large epsilon: with 1e-8 Adam turns rounding noise of a vanishing gradient into a full step.
CONFIG = TD3BCConfig(hidden=(8,), learning_rate=0.01, adam_eps=1e-3, tau=0.1)
ROWS = 12  # two minibatches of 6


def transitions(seed, rows=ROWS):
    return random_transitions(seed, rows, shift=2.0, scale=3.0)


@pytest.fixture(scope="module")
def agent():
    return td3_bc(CONFIG, SPEC)


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.learner.update)


@pytest.fixture(scope="module")
def state(agent):
    """After two updates, so that targets and online networks differ."""
    state, update = agent.learner.init(jax.random.key(0), transitions(0, 100)), jax.jit(agent.learner.update)
    for i in range(2):
        state, _ = update(jax.random.key(i), state, transitions(i))
    return state


def reference_update(p, adams, noise, batch, config):
    """The authors' loop with `policy_freq` 2, once around; `p` holds numpy parameters."""
    s, s2 = ((x - p["mean"]) / p["std"] for x in (batch.observation, batch.next_observation))
    noise = np.clip(config.policy_noise * noise, -config.noise_clip, config.noise_clip)
    for half in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
        a2 = np.clip(np.tanh(forward(p["target_actor"], s2[half])) + noise[half], -1, 1)
        next_q = q_values(p["target_critic"], s2[half], a2).min(axis=0)
        y = batch.reward[half] + config.discount * (1 - batch.terminal[half]) * next_q
        p["critic"] = adams["critic"].step(
            p["critic"], critic_gradient(p["critic"], s[half], batch.action[half], y)
        )
    s, a, n = s[half], batch.action[half], ROWS // 2
    pi, q1 = np.tanh(forward(p["actor"], s)), member(p["critic"], 0)  # after both critic steps
    x = np.concatenate([s, pi], axis=1)
    q = forward(q1, x)
    weight = config.alpha / np.abs(q).mean()
    _, dx = backward(q1, x, np.full((n, 1), -weight / n))
    dpi = dx[:, 3:] + 2 * (pi - a) / pi.size
    grads, _ = backward(p["actor"], s, dpi * (1 - pi**2))
    p["actor"] = adams["actor"].step(p["actor"], grads)
    p["target_actor"] = polyak(p["target_actor"], p["actor"], config.tau)
    p["target_critic"] = polyak(p["target_critic"], p["critic"], config.tau)
    return {"bc_loss": np.mean((pi - a) ** 2), "actor_loss": -weight * q.mean() + np.mean((pi - a) ** 2)}


def test_three_updates_equal_numpy(agent, update):
    state = agent.learner.init(jax.random.key(0), transitions(0, 100))
    p = {
        "actor": to_numpy(state.actor.params),
        "critic": to_numpy(state.critic.params),
        "target_actor": to_numpy(state.target_actor),
        "target_critic": to_numpy(state.target_critic),
        "mean": to_numpy(transitions(0, 100).observation).mean(0),
        "std": to_numpy(transitions(0, 100).observation).std(0) + 1e-3,
    }
    adams = {name: Adam(CONFIG.learning_rate, CONFIG.adam_eps) for name in ("actor", "critic")}
    for i in range(3):
        key, batch = jax.random.key(10 + i), transitions(20 + i)
        state, metrics = update(key, state, batch)
        noise = to_numpy(jax.random.normal(key, (ROWS, 2)))
        expected = reference_update(p, adams, noise, to_numpy(batch), CONFIG)
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=5e-5)
    found = {
        "actor": state.actor.params,
        "critic": state.critic.params,
        "target_actor": state.target_actor,
        "target_critic": state.target_critic,
    }
    for name, tree in found.items():
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), tree, p[name])


def test_targets_follow_slowly(state, update):
    """target <- tau * online + (1 - tau) * target, with tau on the ONLINE network."""
    new, _ = update(jax.random.key(5), state, transitions(5))
    pairs = (
        (state.target_actor, new.actor.params, new.target_actor),
        (state.target_critic, new.critic.params, new.target_critic),
    )
    for old, online, target in pairs:
        expected = polyak(to_numpy(old), to_numpy(online), CONFIG.tau)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), target, expected)


def test_nothing_is_bootstrapped_beyond_a_terminal(state, update):
    batch = transitions(6)._replace(terminal=jnp.ones(ROWS))
    other = batch._replace(next_observation=batch.next_observation + 100.0)
    one, metrics = update(jax.random.key(6), state, batch)
    two, _ = update(jax.random.key(6), state, other)
    jax.tree.map(np.testing.assert_array_equal, one.critic, two.critic)
    np.testing.assert_allclose(metrics["target_mean"], batch.reward[ROWS // 2 :].mean(), rtol=1e-5)


def test_noise_is_clipped(state):
    """However large the noise, it moves a target action by no more than `noise_clip`."""
    batch = transitions(7)
    by_config = [
        td3_bc(TD3BCConfig(hidden=(8,), policy_noise=noise, noise_clip=clip), SPEC).learner.update(
            jax.random.key(7), state, batch
        )[1]["target_mean"]
        for noise, clip in ((0.0, 0.5), (1e6, 0.0), (1e6, 0.5))
    ]
    assert by_config[0] == by_config[1] != by_config[2]


def test_vmapped_seeds_equal_single_runs(agent, update):
    keys, data = jax.random.split(jax.random.key(8), 2), transitions(8, 100)
    states = jax.vmap(agent.learner.init, in_axes=(0, None))(keys, data)
    batches = jax.tree.map(lambda *x: jnp.stack(x), transitions(1), transitions(2))
    together, _ = jax.jit(jax.vmap(agent.learner.update))(keys, states, batches)
    for i in range(2):
        alone, _ = update(keys[i], member(states, i), member(batches, i))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), member(together, i), alone)


def test_actor_is_deterministic_and_bounded(agent, state):
    policy = agent.target(state, 100 * jnp.ones((2, 4, 3)))
    assert policy.mean.shape == policy.std.shape == (2, 4, 2)
    assert not policy.std.any() and jnp.all(jnp.abs(policy.mean) <= 1)
    np.testing.assert_allclose(agent.target(state, 100 * jnp.ones(3)).mean, policy.mean[1, 2], rtol=1e-6)


def test_bandit_with_a_known_answer():
    """One state, Q(a) = 1 - (a - .5)^2: the actor must stop where lambda dQ/da = d(BC)/da."""
    spec, config = Spec(1, 1), TD3BCConfig(hidden=(64, 64), learning_rate=1e-3, normalise_observations=False)
    agent = td3_bc(config, spec)
    action = jax.random.uniform(jax.random.key(0), (4096, 1), minval=-1.0)
    ones = jnp.ones(len(action))
    data = Transition(ones[:, None], action, 1 - jnp.square(action[:, 0] - 0.5), ones[:, None], ones)

    def step(state, key):
        draw, use = jax.random.split(key)
        rows = jax.random.randint(draw, (256,), 0, len(action))
        return agent.learner.update(use, state, jax.tree.map(lambda x: x[rows], data))[0], None

    train = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 1200))[0])
    found = agent.target(train(agent.learner.init(jax.random.key(2), data)), jnp.ones(1)).mean[0]
    mean, best = float(action.mean()), 0.5
    for _ in range(100):  # a = (w / 2 + mean) / (w + 1), w = alpha / Q(a)
        w = config.alpha / (1 - (best - 0.5) ** 2)
        best = (0.5 * w + mean) / (w + 1)
    assert found == pytest.approx(best, abs=0.03)


def test_equal_settings_are_one_agent():
    again = td3_bc(TD3BCConfig(hidden=(8,), learning_rate=0.01, adam_eps=1e-3, tau=0.1), Spec(3, 2))
    assert again is td3_bc(CONFIG, SPEC)
    assert make(CONFIG, SPEC) is again and again.learner.draws == TransitionDraw(3, 2, minibatches=2)
    assert make(IQLConfig(), SPEC).learner.draws == TransitionDraw(3, 2)


def test_mistakes_get_one_line(agent, state):
    with pytest.raises(UserError, match="halved"):
        agent.learner.update(jax.random.key(0), state, transitions(0, 5))
    with pytest.raises(UserError, match="observations of 3 and actions of 2"):
        td3_bc(CONFIG, Spec(4, 2)).learner.init(jax.random.key(0), transitions(0))
    with pytest.raises(UserError, match="tau is 2"):
        TD3BCConfig(tau=2)
    with pytest.raises(UserError, match="no agent is made from a dict"):
        make({}, SPEC)  # pyright: ignore[reportArgumentType]
