"""Behaviour cloning: the regression of the dataset's actions, which every offline algorithm must beat."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.agents.presets import presets_of
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.errors import check_settings
from jdp.learning.actors import actor_method, deterministic
from jdp.learning.observations import observation_affine, standardised
from jdp.learning.optimiser import Trained, begin, constant_adam, descend
from jdp.networks.mlp import mlp
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Network, Normal, Params, Spec, Transition


@dataclass(frozen=True)
class BCConfig:
    """Settings of behaviour cloning; the defaults are those of the actor of TD3+BC (arXiv 2106.06860)."""

    learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    hidden: tuple[int, ...] = (256, 256)
    normalise_observations: bool = True

    def __post_init__(self) -> None:
        check_settings("BCConfig", learning_rate=(self.learning_rate, 0, 1))


class BCState(NamedTuple):
    """The actor."""

    actor: Trained
    standardise: Affine  # of observations, [O]


def _network(config: BCConfig, spec: Spec) -> Network:
    return mlp((*config.hidden, spec.action_dim))


def actor_loss(params: Params, actor: Network, batch: Transition) -> tuple[Array, Metrics]:
    """`(pi(s) - a)^2`, the mean over the batch and action dimensions."""
    action = deterministic(params, actor, batch.observation).mean
    loss = jnp.mean(jnp.square(action - batch.action))
    return loss, {"bc_loss": loss}


def _init(key: Array, transitions: Transition, *, config: BCConfig, spec: Spec) -> BCState:
    check_fits(transitions.observation, transitions.action, spec, "agent")
    params = _network(config, spec).init(key, jnp.zeros(spec.observation_dim))
    return BCState(
        actor=begin(constant_adam(config), params),
        standardise=observation_affine(transitions.observation, enabled=config.normalise_observations),
    )


def _update(
    key: Array, state: BCState, batch: Transition, *, config: BCConfig, spec: Spec
) -> tuple[BCState, Metrics]:
    """One step of regression. `key` is unused."""
    del key
    batch = standardised(batch, state.standardise)
    loss = partial(actor_loss, actor=_network(config, spec), batch=batch)
    actor, metrics = descend(constant_adam(config), state.actor, loss)
    return state._replace(actor=actor), metrics


def _target(state: BCState, observation: Array, *, config: BCConfig, spec: Spec) -> Normal:
    return deterministic(state.actor.params, _network(config, spec), state.standardise(observation))


def presets(task: Task) -> Mapping[str, Preset]:
    """The same for all datasets."""
    del task
    return presets_of(BCConfig())


@register(
    "agent",
    "bc",
    BCConfig,
    presets,
    title="Behaviour cloning",
    idea="regression of the dataset's actions",
    departures="the actor of TD3+BC without its critic",
)
@lru_cache
def bc(config: BCConfig, spec: Spec) -> Method:
    """Behaviour cloning; one minibatch an update. Equal arguments give the same method.

    Its actor is deterministic: `target` gives a `Normal` with `std` zero.
    """
    return actor_method(_init, _update, _target, config, spec)
