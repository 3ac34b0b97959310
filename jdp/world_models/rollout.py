"""Imagined episodes: a world model stepped by a policy, from states of the dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.errors import UserError
from jdp.types import ActionDistribution, PyTree, Transition, WorldModel, bind, named_keys

Actor = Callable[[Array, Array, Array], Array]  # (key, step [], observation [B, O]) -> action [B, A]


@dataclass(frozen=True)
class RolloutConfig:
    """Branched rollouts of model-based agents (MBPO, arXiv 1906.08253, algorithm 2)."""

    length: int = 5
    """Steps of a rollout."""
    batch: int = 10_000
    """Rollouts at once, each from a state drawn from the dataset."""
    every: int = 1_000
    """Agent updates between two batches of rollouts."""
    capacity: int = 250_000
    """Imagined transitions that the buffer holds; the newest stay. Five batches of rollouts of length 5."""
    real_share: float = 0.05
    """Share of real transitions in a batch."""

    def __post_init__(self) -> None:
        for name in ("length", "batch", "every", "capacity"):
            if getattr(self, name) < 1:
                raise UserError(f"rollouts.{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.real_share <= 1:
            raise UserError(f"rollouts.real_share is {self.real_share}: it must lie between 0 and 1")
        if self.length * self.batch > self.capacity:
            raise UserError(
                f"{self.batch:,} rollouts of {self.length} steps do not fit the buffer of "
                f"rollouts.capacity {self.capacity:,}: shorten rollouts.length or enlarge the capacity"
            )


class Rollout(NamedTuple):
    """Imagined steps; row `[:, t + 1]` goes on from row `[:, t]`."""

    transitions: Transition  # fields [B, T, ...], in the units of the task
    alive: Array  # [B, T] bool: the episode had not ended before this step, and its numbers are finite


def _sampled(state: PyTree, key: Array, step: Array, observation: Array, *, act: Callable) -> Array:
    del step
    return jnp.clip(act(state, observation).sample(key), -1, 1)


def _greedy(state: PyTree, key: Array, step: Array, observation: Array, *, act: Callable) -> Array:
    del key, step
    return act(state, observation).mean


def agent_actor(
    act: Callable[[PyTree, Array], ActionDistribution], state: PyTree, *, sampled: bool = True
) -> Partial:
    """The policy of an agent as an `Actor`: a draw from it, clipped to the box, or its mean action."""
    return bind(_sampled if sampled else _greedy, state, act=act)


def _noisy(state: PyTree, std: Array, key: Array, step: Array, observation: Array, *, act: Callable) -> Array:
    mean = _greedy(state, key, step, observation, act=act)
    return jnp.clip(mean + std * jax.random.normal(key, mean.shape, mean.dtype), -1, 1)


def noisy_actor(
    act: Callable[[PyTree, Array], ActionDistribution], state: PyTree, std: Array | float
) -> Partial:
    """The mean action of an agent plus `N(0, std^2)`, clipped to the box."""
    return bind(_noisy, state, jnp.asarray(std, jnp.float32), act=act)


def _replayed(actions: Array, key: Array, step: Array, observation: Array) -> Array:
    del key, observation
    return actions[:, step]


def replay_actor(actions: Array) -> Partial:
    """Plays `actions` `[B, T, A]` whatever happens: how a model answers actions that were really taken."""
    return bind(_replayed, actions)


def rollout(
    key: Array,
    model: WorldModel,
    state: PyTree,
    actor: Actor,
    observations: Array,
    actions: Array,
    *,
    length: int,
) -> Rollout:
    """`length` steps of `model` from the histories `observations` `[B, H, O]`, `actions` `[B, H - 1, A]`.

    An episode that the model has ended is dead: it is still stepped, for all shapes are fixed, but the
    steps count for nothing (`alive` is False). So is one whose numbers ceased to be finite, from the
    step on that made them so. The key is consumed.
    """

    def body(scanned, item):
        carry, observation, alive = scanned
        key, index = item
        keys = named_keys(key, "act", "step")
        action = actor(keys["act"], index, observation)
        carry, following, reward, terminal = model.step(keys["step"], state, carry, action)
        terminal = terminal.astype(jnp.float32)
        row = Transition(observation, action, reward, following, terminal)
        finite = (
            jnp.isfinite(following).all(axis=-1) & jnp.isfinite(reward) & jnp.isfinite(action).all(axis=-1)
        )
        alive = alive & finite
        # To the policy a dead episode stands still, so that it is never shown what is not finite.
        following = jnp.where(alive[:, None], following, observation)
        return (carry, following, alive & (terminal == 0)), (row, alive)

    start = (model.start(observations, actions), observations[:, -1], jnp.ones(len(observations), bool))
    items = (jax.random.split(key, length), jnp.arange(length))
    _, (rows, alive) = jax.lax.scan(body, start, items)
    rows, alive = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (rows, alive))
    return Rollout(rows, alive)
