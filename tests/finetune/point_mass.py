"""A point on a line, pushed towards 0, data of a demonstrator that aims beside it, and clones of that."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from jdp.data.episodes import Origin, make_episodes
from jdp.loops import train, train_world_model
from jdp.loops.online import score_together
from jdp.types import Method, Spec, Stepped, Task
from jdp.world_models.ensemble import EnsembleConfig

KEY = jax.random.key(0)
LIMIT, WRONG = 20, 0.5  # steps; where the demonstrator takes the point
SPEC = Spec(2, 1, "line", LIMIT)
A = np.array([[1.0, 0.2], [0.0, 1.0]], np.float32)
B = np.array([0.02, 0.2], np.float32)


def _reset(key):
    seen = jnp.stack([jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros(())])
    return seen, seen, jnp.zeros(0)


def _step(key, state, action):
    state = jnp.asarray(A) @ state + jnp.asarray(B) * action[0]
    never = jnp.zeros((), bool)
    return state, Stepped(state, -jnp.square(state[0]), never, never)


TASK = Task(_reset, _step, SPEC)


def controlled(episodes, aim=WRONG, noise=0.4, seed=0):
    """`[episodes, LIMIT, ...]` observations, actions, rewards and next observations under a controller."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(-1, 1, episodes), np.zeros(episodes)], 1).astype(np.float32)
    rows = []
    for _ in range(LIMIT):
        push = -1.5 * (x[:, 0] - aim) - 1.5 * x[:, 1] + noise * rng.normal(size=episodes)
        a = np.clip(push, -1, 1).astype(np.float32)
        after = x @ A.T + a[:, None] * B
        rows.append((x, a[:, None], -(after[:, 0] ** 2), after))
        x = after
    return [np.stack(field, 1) for field in zip(*rows, strict=True)]


@lru_cache
def dataset(episodes=300):
    observation, action, reward, following = (
        x.reshape(episodes * LIMIT, *x.shape[2:]) for x in controlled(episodes)
    )
    none = np.zeros(len(reward), bool)
    late = np.arange(len(reward)) % LIMIT == LIMIT - 1
    origin = Origin("point mass", "file", "", "", 0, "")
    return make_episodes(
        observation, action, reward, following, none, late, spec=SPEC, origin=origin, marked=True
    )


def best():
    """The mean return of a good controller, which knows where to go."""
    return float(controlled(1000, aim=0.0, noise=0.0)[2].sum(1).mean())


@lru_cache
def cloned(method: Method, updates=1500):
    """The state of a policy that imitates the demonstrator."""
    draw = method.learner.draws
    rows = jax.tree.map(jnp.asarray, draw.prepare(dataset()))  # type: ignore[union-attr]
    return train(method.learner, rows, key=KEY, updates=updates, batch_size=256)


@lru_cache
def model(config=None):
    """A world model of the data, an ensemble where no other is asked for."""
    ensemble = EnsembleConfig(
        members=3, elites=3, hidden=(64, 64), decay=(0.0,), learning_rate=3e-3, epochs=20
    )
    return train_world_model(dataset(), config or ensemble, key=KEY, termination="never")


def returns(policy, states, seeds, episodes=200):
    """Of the true task, `[seeds, episodes]`, always from the same starts."""
    many = states if seeds > 1 else jax.tree.map(lambda x: x[None], states)
    return score_together(policy, many, TASK, key=KEY, seeds=seeds, episodes=episodes)["returns"]
