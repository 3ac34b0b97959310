"""Imagined episodes: a world model stepped by a policy, from states of the dataset."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.types import Bound, Decision, Policy, PyTree, Target, Transition, WorldModel, named_keys


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


def without_learner(model: WorldModel) -> WorldModel:
    """What steps: hashable, whatever draws the model learned from (a dictionary is not)."""
    return model._replace(learner=None)  # pyright: ignore[reportArgumentType]


class Rollout(NamedTuple):
    """Imagined steps; row `[:, t + 1]` goes on from row `[:, t]`."""

    transitions: Transition  # fields [B, T, ...], in the units of the task
    alive: Array  # [B, T] bool: the episode had not ended before this step, and its numbers are finite


class Noisy(NamedTuple):
    """The state of a `noisy_policy`."""

    state: PyTree  # of whose target it is
    std: Array  # []


def _noisy(
    key: Array, state: Noisy, carry: PyTree, observation: Array, goal: Array, *, target: Target
) -> tuple[PyTree, Decision]:
    del goal
    mean = target(state.state, observation).mean
    action = jnp.clip(mean + state.std * jax.random.normal(key, mean.shape, mean.dtype), -1, 1)
    return carry, decided_anew(action)


def noisy_policy(target: Target) -> Policy:
    """The mean action of `target` plus `N(0, std^2)`, clipped to the box; its state is a `Noisy`."""
    return Policy(remembers_nothing, Bound(_noisy, (("target", target),)))


def _first_step(observation: Array) -> Array:
    return jnp.zeros(observation.shape[0], jnp.int32)


def _replayed(
    key: Array, state: Array, carry: Array, observation: Array, goal: Array
) -> tuple[Array, Decision]:
    del key, observation, goal
    return carry + 1, decided_anew(state[jnp.arange(carry.shape[0]), carry])


REPLAY = Policy(Bound(_first_step, ()), Bound(_replayed, ()))
"""Plays its state, actions `[B, T, A]`, whatever happens: how a model answers actions that were taken."""


def rollout(
    key: Array,
    model: WorldModel,
    state: PyTree,
    policy: Policy,
    acting: PyTree,
    observations: Array,
    actions: Array,
    *,
    length: int,
) -> Rollout:
    """`length` steps of `model` from the histories `observations` `[B, H, O]`, `actions` `[B, H - 1, A]`.

    `state` is that of the model, `acting` that of the `policy`, which sees no goal.

    An episode that the model has ended is dead: it is still stepped, for all shapes are fixed, but the
    steps count for nothing (`alive` is False). So is one whose numbers ceased to be finite, from the
    step on that made them so. The key is consumed.
    """

    def body(scanned, key):
        carry, memory, observation, alive = scanned
        keys = named_keys(key, "act", "step")
        memory, decision = policy.act(keys["act"], acting, memory, observation, goal)
        action = decision.action
        carry, following, reward, terminal = model.step(keys["step"], state, carry, action)
        terminal = terminal.astype(jnp.float32)
        row = Transition(observation, action, reward, following, terminal)
        finite = (
            jnp.isfinite(following).all(axis=-1) & jnp.isfinite(reward) & jnp.isfinite(action).all(axis=-1)
        )
        alive = alive & finite
        # To the policy a dead episode stands still, so that it is never shown what is not finite.
        following = jnp.where(alive[:, None], following, observation)
        return (carry, memory, following, alive & (terminal == 0)), (row, alive)

    first, goal = observations[:, -1], jnp.zeros((len(observations), 0))
    begun = (model.start(observations, actions), policy.init(first), first, jnp.ones(len(observations), bool))
    _, (rows, alive) = jax.lax.scan(body, begun, jax.random.split(key, length))
    rows, alive = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (rows, alive))
    return Rollout(rows, alive)
