"""TD3+BC's and IQL's parts in plain numpy: networks of one hidden layer, their gradients, Adam."""

import jax
import jax.numpy as jnp
import numpy as np

from jdp.types import Transition


def random_transitions(seed, rows, *, shift=0.0, scale=1.0, next_actions=False):
    """`rows` transitions of three observations and two actions; a third of them is terminal."""
    k = jax.random.split(jax.random.key(seed), 6)
    return Transition(
        observation=shift + scale * jax.random.normal(k[0], (rows, 3)),
        action=jnp.tanh(jax.random.normal(k[1], (rows, 2))),
        reward=jax.random.normal(k[2], (rows,)),
        next_observation=shift + scale * jax.random.normal(k[3], (rows, 3)),
        terminal=jax.random.bernoulli(k[4], 0.3, (rows,)).astype(jnp.float32),
        next_action=jnp.tanh(jax.random.normal(k[5], (rows, 2))) if next_actions else None,
    )


def to_numpy(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def forward(p, x):
    """An MLP of one hidden ReLU layer."""
    h = np.maximum(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
    return h @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]


def backward(p, x, dout):
    """Gradients of `sum(dout * forward(p, x))` in `p` and in `x`."""
    h = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    dh = (dout @ p["Dense_1"]["kernel"].T) * (h > 0)
    grads = {
        "Dense_0": {"kernel": x.T @ dh, "bias": dh.sum(0)},
        "Dense_1": {"kernel": np.maximum(h, 0).T @ dout, "bias": dout.sum(0)},
    }
    return grads, dh @ p["Dense_0"]["kernel"].T


class Adam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self, lr, eps):
        self.lr, self.eps, self.t, self.m, self.v = lr, eps, 0, None, None

    def step(self, p, g):
        self.t += 1
        zeros = jax.tree.map(np.zeros_like, g)
        self.m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, self.m or zeros, g)
        self.v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, self.v or zeros, g)
        lr = self.lr(self.t - 1) if callable(self.lr) else self.lr
        a, b = 1 - 0.9**self.t, 1 - 0.999**self.t
        return jax.tree.map(lambda p, m, v: p - lr * (m / a) / (np.sqrt(v / b) + self.eps), p, self.m, self.v)


def member(params, i):
    return jax.tree.map(lambda x: x[i], params)


def stack(members):
    return jax.tree.map(lambda *x: np.stack(x), *members)


def q_values(params, s, a):
    """`[2, B]` of both critics."""
    x = np.concatenate([s, a], axis=1)
    return np.stack([forward(member(params, i), x)[:, 0] for i in range(2)])


def critic_gradient(params, s, a, target):
    """Of the sum over critics of the mean squared error to `target`."""
    x = np.concatenate([s, a], axis=1)
    dq = 2 * (q_values(params, s, a) - target) / len(s)
    return stack([backward(member(params, i), x, dq[i][:, None])[0] for i in range(2)])


def polyak(target, online, tau):
    return jax.tree.map(lambda t, o: (1 - tau) * t + tau * o, target, online)
