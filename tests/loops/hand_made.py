"""Small methods and environments made by hand: what loops need, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from jdp.data.draws import TransitionDraw
from jdp.evaluation import Step
from jdp.types import Decision, Learner, Method, Normal, Policy

O, A = 2, 1  # noqa: E741


class Countdown:
    """1 to 7 steps, by the reset seed; reward 1 + action, 100 more with the last; dies if stepped on.

    The goal is the number of steps left, reached when two are left.
    """

    max_episode_steps: int | None = 10
    closed = False

    def reset(self, seed: int, *, left: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        self.left = left or 1 + seed % 7
        return np.array([self.left, 0.0]), np.array([self.left])

    def step(self, action: np.ndarray) -> Step:
        assert self.left > 0, "stepped after the end"
        self.left -= 1
        reward, ended = 1.0 + float(action[0]) + 100.0 * (self.left == 0), self.left == 0
        now = np.array([self.left, float(action[0])])
        return Step(now, np.array([self.left]), reward, ended and self.left % 2 == 0, ended, self.left == 2)

    def close(self) -> None:
        self.closed = True


def count(observation):
    """A carry: steps that each environment has made."""
    return jnp.zeros(observation.shape[0], jnp.int32)


def decide(carry, action, every=1):
    """`(carry, Decision)`, of which every `every`-th is a new one."""
    return carry + 1, Decision(action, carry % every == 0)


def _constant(key, state, carry, observation, goal):
    return decide(carry, jnp.full((observation.shape[0], A), state))


def _noise(key, state, carry, observation, goal):
    return decide(carry, state * jax.random.normal(key, (observation.shape[0], A)))


CONSTANT, NOISE = Policy(count, _constant), Policy(count, _noise)


def _nothing(observation):
    return ()


def _mean(key, state, carry, observation, goal):
    action = _target(state, observation).mean
    return carry, Decision(action, jnp.ones(action.shape[0], bool))


def _target(state, observation):
    mean = jnp.tanh(observation @ state["w"])
    return Normal(mean, jnp.full_like(mean, 0.1))


def _init(key, data):
    return {"w": 0.1 * jax.random.normal(key, (O, A)), "shift": jnp.mean(data.observation, axis=0)}


def _update(key, state, batch):
    """A regression with noise: sensitive to the key, the batch and the order of updates."""

    def loss(w):
        error = jnp.tanh((batch.observation - state["shift"][None]) @ w) - batch.action
        return jnp.mean(jnp.square(error + 0.1 * jax.random.normal(key, error.shape)))

    value, slope = jax.value_and_grad(loss)(state["w"])
    return {**state, "w": state["w"] - 0.1 * slope}, {"loss": value}


def agent(minibatches: int = 2, next_actions: bool = False) -> Method:
    """A regression of actions: equal arguments give equal methods."""
    draw = TransitionDraw(O, A, minibatches, next_actions)
    policy = Policy(_nothing, _mean)
    return Method(Learner(_init, _update, draw), policy, behaviour=policy, target=_target)


def bits(tree):
    """Of every leaf."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
