"""An update of SAC in plain numpy, in double precision, with gradients by central differences."""

import jax
import jax.numpy as jnp
import numpy as np
from agent_reference import Adam, forward, member, polyak, random_transitions, to_numpy

from jdp.types import Spec, Transition

SPEC = Spec(observation_dim=3, action_dim=2)
ROWS = 6
# A large epsilon: with 1e-8 Adam turns rounding noise of a vanishing gradient into a full step.
SMALL = {
    "hidden": (5,),
    "tau": 0.1,
    "adam_eps": 1e-3,
    "actor_learning_rate": 0.01,
    "critic_learning_rate": 0.02,
    "alpha_learning_rate": 0.03,
}


def transitions(seed, rows=ROWS):
    return random_transitions(seed, rows, shift=1.0, scale=2.0)


def q_values(params, s, a):
    """`[N, B]`."""
    x = np.concatenate([s, a], axis=-1)
    size = len(params["Dense_0"]["bias"])
    return np.stack([forward(member(params, i), x)[..., 0] for i in range(size)])


def sample(params, s, noise, config):
    """An action from standard normal `noise`, and its log density by the change of variables."""
    location, log_std = np.split(forward(params, s), 2, axis=-1)
    std = np.exp(np.clip(log_std, *config.log_std_range))
    a = np.tanh(location + std * noise)
    gaussian = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return a, (gaussian - np.log(1 - a**2)).sum(-1)


def gradient(loss, params, h=1e-6):
    """Central differences of `loss(params)`."""
    leaves, tree = jax.tree.flatten(params)
    leaves = [np.array(x) for x in leaves]
    found = [np.zeros_like(x) for x in leaves]
    for x, g in zip(leaves, found, strict=True):
        for i in np.ndindex(x.shape):
            value, sides = x[i], []
            for x[i] in (value + h, value - h):
                sides.append(loss(jax.tree.unflatten(tree, leaves)))
            x[i], g[i] = value, (sides[0] - sides[1]) / (2 * h)
    return jax.tree.unflatten(tree, found)


def start(state, config):
    """`(parameters, optimisers)` of the reference from a `SACState`."""
    p = {
        "log_alpha": to_numpy(state.log_alpha.params),
        "actor": to_numpy(state.actor.params),
        "critic": to_numpy(state.critic.params),
        "target_critic": to_numpy(state.target_critic),
        "mean": to_numpy(state.standardise.mean),
        "std": to_numpy(state.standardise.std),
    }
    rates = {"log_alpha": config.alpha_learning_rate, "actor": config.actor_learning_rate}
    rates["critic"] = config.critic_learning_rate
    return p, {name: Adam(rate, config.adam_eps) for name, rate in rates.items()}


def update(p, adams, key, batch, config, penalty=None):
    """Alpha, actor, critics, target; `penalty(critic parameters, actor parameters, s, a, s2)`."""
    keys, shape = jax.random.split(key, 3), batch.action.shape
    noise, next_noise = (to_numpy(jax.random.normal(k, shape)) for k in keys[:2])
    s, s2 = ((x - p["mean"]) / p["std"] for x in (batch.observation, batch.next_observation))
    _, log_prob = sample(p["actor"], s, noise, config)
    target_entropy = -shape[1] if config.target_entropy is None else config.target_entropy
    p["log_alpha"] = adams["log_alpha"].step(p["log_alpha"], -np.mean(log_prob + target_entropy))
    alpha = np.exp(p["log_alpha"])

    def actor_loss(params):
        a, log_prob = sample(params, s, noise, config)
        return np.mean(alpha * log_prob - q_values(p["critic"], s, a).min(0))

    metrics = {"actor_loss": actor_loss(p["actor"])}
    p["actor"] = adams["actor"].step(p["actor"], gradient(actor_loss, p["actor"]))

    a2, log_prob2 = sample(p["actor"], s2, next_noise, config)
    value = q_values(p["target_critic"], s2, a2).min(0) - config.backup_entropy * alpha * log_prob2
    y = batch.reward + config.discount * (1 - batch.terminal) * value

    def critic_loss(params):
        loss = np.square(q_values(params, s, batch.action) - y).mean(1).sum()
        return loss + (penalty(params, p["actor"], s, batch.action, s2) if penalty else 0)

    metrics["target_mean"] = y.mean()
    p["critic"] = adams["critic"].step(p["critic"], gradient(critic_loss, p["critic"]))
    p["target_critic"] = polyak(p["target_critic"], p["critic"], config.tau)
    return metrics


def assert_equal(state, p):
    """A `SACState` against the reference's parameters."""
    found = {
        "log_alpha": state.log_alpha.params,
        "actor": state.actor.params,
        "critic": state.critic.params,
        "target_critic": state.target_critic,
    }
    for name, tree in found.items():
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), tree, p[name])


def soft_maximum(params, actor, s, s2, key, config):
    """`[N, B]`, the soft maximum of CQL with the draws that jax makes from `key`."""
    k, shape = jax.random.split(key, 3), (config.actions, len(s), SPEC.action_dim)
    uniform = to_numpy(jax.random.uniform(k[0], shape, minval=-1.0))
    found = [q_values(params, np.broadcast_to(s, (*shape[:2], 3)), uniform) + np.log(2.0**2)]
    for at, noise in ((s, k[1]), (s2, k[2])):
        a, log_prob = sample(actor, at, to_numpy(jax.random.normal(noise, shape)), config)
        found.append(q_values(params, np.broadcast_to(s, (*shape[:2], 3)), a) - log_prob)
    scaled = np.exp(np.concatenate(found, axis=1) / config.temperature)
    return config.temperature * np.log(scaled.sum(1))


def two_states():
    """0 earns -(a - .5)^2 and leads to 1, which earns 1 - (a + .5)^2 and ends: the best is .5, then -.5."""
    action = jnp.linspace(-1, 1, 64)
    first, second = jnp.tile(jnp.eye(2)[:1], (64, 1)), jnp.tile(jnp.eye(2)[1:], (64, 1))
    return Transition(
        observation=jnp.concatenate([first, second]),
        action=jnp.concatenate([action, action])[:, None],
        reward=jnp.concatenate([-jnp.square(action - 0.5), 1 - jnp.square(action + 0.5)]),
        next_observation=jnp.concatenate([second, second]),
        terminal=jnp.concatenate([jnp.zeros(64), jnp.ones(64)]),
    )


def trained(agent, data, updates):
    """The state after full-batch updates."""

    def step(state, key):
        return agent.learner.update(key, state, data)[0], None

    @jax.jit
    def train(key, data):
        return jax.lax.scan(
            step, agent.learner.init(key, data), jax.random.split(jax.random.key(1), updates)
        )[0]

    return train(jax.random.key(0), data)
