"""ReBRAC against numpy, its laws one by one, and a bandit with a known answer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_reference import Adam, backward, forward, member, polyak, random_transitions, stack, to_numpy

from jdp import UserError
from jdp.agents.rebrac import REBRAC_BETAS, ReBRACConfig, rebrac
from jdp.data import TransitionDraw
from jdp.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
SETTINGS: dict[str, Any] = dict(
    hidden=(8,), learning_rate=0.01, adam_eps=1e-3, tau=0.1, beta_actor=0.3, beta_critic=0.5
)
CONFIG = ReBRACConfig(**SETTINGS)
ROWS = 12  # two minibatches of 6


def transitions(seed, rows=ROWS):
    return random_transitions(seed, rows, next_actions=True)


@pytest.fixture(scope="module")
def agent():
    return rebrac(CONFIG, SPEC)


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.learner.update)


@pytest.fixture(scope="module")
def state(agent, update):
    """After two updates, so that targets and online networks differ."""
    state = agent.learner.init(jax.random.key(0), transitions(0))
    for i in range(2):
        state, _ = update(jax.random.key(i), state, transitions(i))
    return state


def normalise(h):
    """Layer norm before its scale and bias, and the deviation it divided by."""
    deviation = np.sqrt(h.var(axis=1, keepdims=True) + 1e-6)
    return (h - h.mean(axis=1, keepdims=True)) / deviation, deviation


def critic_forward(p, x):
    """A critic of one hidden layer: ReLU, then layer norm."""
    z, _ = normalise(np.maximum(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0))
    y = z * p["LayerNorm_0"]["scale"] + p["LayerNorm_0"]["bias"]
    return y @ p["Dense_1"]["kernel"][:, 0] + p["Dense_1"]["bias"]


def critic_backward(p, x, dout):
    """Gradients of `sum(dout * critic_forward(p, x))`, `dout` `[B]`, in `p` and in `x`."""
    h = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    z, deviation = normalise(np.maximum(h, 0))
    y = z * p["LayerNorm_0"]["scale"] + p["LayerNorm_0"]["bias"]
    dy = dout[:, None] * p["Dense_1"]["kernel"][:, 0]
    dz = dy * p["LayerNorm_0"]["scale"]
    dh = (dz - dz.mean(1, keepdims=True) - z * (dz * z).mean(1, keepdims=True)) / deviation * (h > 0)
    grads = {
        "Dense_0": {"kernel": x.T @ dh, "bias": dh.sum(0)},
        "LayerNorm_0": {"scale": (dy * z).sum(0), "bias": dy.sum(0)},
        "Dense_1": {"kernel": y.T @ dout[:, None], "bias": dout.sum()[None]},
    }
    return grads, dh @ p["Dense_0"]["kernel"].T


def critics(params, s, a):
    """`[2, B]` of both critics."""
    x = np.concatenate([s, a], axis=1)
    return np.stack([critic_forward(member(params, i), x) for i in range(2)])


def reference_update(p, adams, noise, batch, config):
    """Two critic steps on two minibatches, an actor step on the second, the targets."""
    noise = np.clip(config.policy_noise * noise, -config.noise_clip, config.noise_clip)
    for half in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
        s, a, s2 = batch.observation[half], batch.action[half], batch.next_observation[half]
        a2 = np.clip(np.tanh(forward(p["target_actor"], s2)) + noise[half], -1, 1)
        penalty = ((a2 - batch.next_action[half]) ** 2).sum(1)
        next_q = critics(p["target_critic"], s2, a2).min(axis=0) - config.beta_critic * penalty
        y = batch.reward[half] + config.discount * (1 - batch.terminal[half]) * next_q
        dq = 2 * (critics(p["critic"], s, a) - y) / len(s)
        x = np.concatenate([s, a], axis=1)
        grads = stack([critic_backward(member(p["critic"], i), x, dq[i])[0] for i in range(2)])
        p["critic"] = adams["critic"].step(p["critic"], grads)
    pi, n = np.tanh(forward(p["actor"], s)), len(s)
    q = critics(p["critic"], s, pi)  # after both critic steps
    lowest = q.argmin(axis=0)
    weight = 1 / np.abs(q.min(axis=0)).mean()
    x = np.concatenate([s, pi], axis=1)
    dpi = 2 * config.beta_actor * (pi - a) / n
    for i in range(2):
        dpi += critic_backward(member(p["critic"], i), x, -weight / n * (lowest == i))[1][:, 3:]
    p["actor"] = adams["actor"].step(p["actor"], backward(p["actor"], s, dpi * (1 - pi**2))[0])
    p["target_actor"] = polyak(p["target_actor"], p["actor"], config.tau)
    p["target_critic"] = polyak(p["target_critic"], p["critic"], config.tau)
    bc = ((pi - a) ** 2).sum(1).mean()
    return {
        "bc_loss": bc,
        "actor_loss": config.beta_actor * bc - weight * q.min(axis=0).mean(),
        "target_mean": y.mean(),
    }


def test_two_updates_equal_numpy(agent, update):
    state = agent.learner.init(jax.random.key(0), transitions(0))
    p = {
        "actor": to_numpy(state.actor.params),
        "critic": to_numpy(state.critic.params),
        "target_actor": to_numpy(state.target_actor),
        "target_critic": to_numpy(state.target_critic),
    }
    adams = {name: Adam(CONFIG.learning_rate, CONFIG.adam_eps) for name in ("actor", "critic")}
    for i in range(2):
        key, batch = jax.random.key(10 + i), transitions(20 + i)
        state, metrics = update(key, state, batch)
        noise = to_numpy(jax.random.normal(key, (ROWS, 2)))
        for name, value in reference_update(p, adams, noise, to_numpy(batch), CONFIG).items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=5e-5)
    found = {
        "actor": state.actor.params,
        "critic": state.critic.params,
        "target_actor": state.target_actor,
        "target_critic": state.target_critic,
    }
    for name, tree in found.items():
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), tree, p[name])


def test_networks_begin_as_the_authors_do():
    state = jax.jit(rebrac(ReBRACConfig(), SPEC).learner.init)(jax.random.key(0), transitions(0))
    for params, limit in ((state.actor.params, 1e-3), (state.critic.params, 3e-3)):
        assert len([name for name in params if name.startswith("Dense")]) == 4  # 3 hidden layers
        assert (params["Dense_0"]["bias"] == jnp.float32(0.1)).all()
        last = jnp.abs(params["Dense_3"]["kernel"]).max()
        assert 0.9 * limit < last <= limit
    assert "LayerNorm_0" in state.critic.params and "LayerNorm_0" not in state.actor.params


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


def test_a_terminal_masks_the_bootstrap_and_the_penalty(state, update):
    batch = transitions(6)._replace(terminal=jnp.ones(ROWS))
    other = batch._replace(next_observation=batch.next_observation + 100.0, next_action=-batch.action)
    one, metrics = update(jax.random.key(6), state, batch)
    two, _ = update(jax.random.key(6), state, other)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    np.testing.assert_allclose(metrics["target_mean"], batch.reward[ROWS // 2 :].mean(), rtol=1e-5)


def test_the_penalty_is_the_squared_norm(state, update):
    """Targets fall by `discount * beta * |a~' - a'|^2`, a sum over dimensions."""
    key, batch = jax.random.key(7), transitions(7)._replace(terminal=jnp.zeros(ROWS))
    mean = np.tanh(forward(to_numpy(state.target_actor), to_numpy(batch.next_observation)))
    noise = np.clip(0.2 * to_numpy(jax.random.normal(key, (ROWS, 2))), -0.5, 0.5)
    smoothed = np.clip(mean + noise, -1, 1)
    at_data, at_policy = (
        update(key, state, batch._replace(next_action=action))[1]["target_mean"]
        for action in (batch.next_action, jnp.asarray(smoothed, jnp.float32))
    )
    distance = ((smoothed - to_numpy(batch.next_action)) ** 2).sum(1)[ROWS // 2 :].mean()
    assert at_policy - at_data == pytest.approx(0.99 * 0.5 * distance, rel=1e-4)


def test_vmapped_seeds_equal_single_runs(agent, update):
    keys, data = jax.random.split(jax.random.key(8), 2), transitions(8)
    states = jax.jit(jax.vmap(agent.learner.init, in_axes=(0, None)))(keys, data)
    batches = jax.tree.map(lambda *x: jnp.stack(x), transitions(1), transitions(2))
    together, _ = jax.jit(jax.vmap(agent.learner.update))(keys, states, batches)
    for i in range(2):
        alone, _ = update(keys[i], member(states, i), member(batches, i))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), member(together, i), alone)


def test_bandit_with_a_known_answer():
    """Q(a) = 1 - (a - .5)^2, data around -.3: the actor stops where `beta d|a - m|^2 = dQ / |Q|`.

    With a huge beta it stays at the data; with a small one it leaves them for the optimum.
    """
    action = jnp.clip(-0.3 + 0.3 * jax.random.normal(jax.random.key(0), (128, 1)), -1, 1)
    reward, ones = 1 - jnp.square(action[:, 0] - 0.5), jnp.ones(len(action))
    data = Transition(ones[:, None], action, reward, ones[:, None], ones, jnp.zeros_like(action))
    both = jax.tree.map(lambda x: jnp.concatenate([x, x]), data)  # two minibatches of all data
    mean, best = float(action.mean()), 0.0
    for beta in (1.0, 1000.0):
        agent = rebrac(ReBRACConfig(hidden=(64,), learning_rate=3e-3, beta_actor=beta), Spec(1, 1))

        def step(state, key, agent=agent):
            return agent.learner.update(key, state, both)[0], None

        train = jax.jit(partial(jax.lax.scan, step))
        state, _ = train(
            agent.learner.init(jax.random.key(2), data), jax.random.split(jax.random.key(1), 400)
        )
        found = agent.target(state, jnp.ones(1)).mean[0]
        best = mean
        for _ in range(100):  # a = (w / 2 + beta m) / (w + beta), w = 1 / Q(a)
            w = 1 / (1 - (best - 0.5) ** 2)
            best = (0.5 * w + beta * mean) / (w + beta)
        assert found == pytest.approx(best, abs=0.03)
    assert best == pytest.approx(mean, abs=0.01)  # of the huge beta


def test_published_weights():
    assert len(REBRAC_BETAS) == 12 + 3  # locomotion, maze2d
    assert REBRAC_BETAS["hopper-medium-v2"] == (ReBRACConfig().beta_actor, ReBRACConfig().beta_critic)
    for actor, critic in REBRAC_BETAS.values():
        ReBRACConfig(beta_actor=actor, beta_critic=critic)


def test_the_agent_says_what_its_batches_hold(agent):
    assert agent.learner.draws == TransitionDraw(3, 2, minibatches=2, next_actions=True)
    assert rebrac(ReBRACConfig(**SETTINGS), Spec(3, 2)) is agent


def test_mistakes_get_one_line(agent, state):
    with pytest.raises(UserError, match="next_actions=True"):
        agent.learner.update(jax.random.key(0), state, transitions(0)._replace(next_action=None))
    with pytest.raises(UserError, match="halved"):
        agent.learner.update(jax.random.key(0), state, transitions(0, 5))
    with pytest.raises(UserError, match="tau is 2"):
        ReBRACConfig(tau=2)
    with pytest.raises(UserError, match="beta_critic is -1"):
        ReBRACConfig(beta_critic=-1)
