"""Behaviour cloning: the regression of the dataset's actions, which every offline algorithm must beat."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jdp.agents import common
from jdp.agents.common import Learner, Standardiser
from jdp.networks.mlp import mlp
from jdp.types import Agent, Bound, Metrics, Network, Normal, Params, Spec, Transition


@dataclass(frozen=True)
class BCConfig:
    """Settings of behaviour cloning; the defaults are those of the actor of TD3+BC (arXiv 2106.06860)."""

    learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    hidden: tuple[int, ...] = (256, 256)
    normalise_observations: bool = True

    def __post_init__(self) -> None:
        common.check_settings("BCConfig", learning_rate=(self.learning_rate, 0, 1))


class BCState(NamedTuple):
    """The actor."""

    actor: Learner
    standardise: Standardiser  # of observations, [O]


def _network(config: BCConfig, spec: Spec) -> Network:
    return mlp((*config.hidden, spec.action_dim))


def _adam(config: BCConfig) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate, eps=config.adam_eps)


def actor_loss(params: Params, actor: Network, batch: Transition) -> tuple[Array, Metrics]:
    """`(pi(s) - a)^2`, the mean over the batch and action dimensions."""
    action = common.deterministic(params, actor, batch.observation).mean
    loss = jnp.mean(jnp.square(action - batch.action))
    return loss, {"bc_loss": loss}


def _init(key: Array, transitions: Transition, *, config: BCConfig, spec: Spec) -> BCState:
    common.check_fits(transitions, spec)
    params = _network(config, spec).init(key, jnp.zeros(spec.observation_dim))
    return BCState(
        actor=common.learner(params, _adam(config)),
        standardise=common.standardiser(transitions.observation, enabled=config.normalise_observations),
    )


def _update(
    key: Array, state: BCState, batch: Transition, *, config: BCConfig, spec: Spec
) -> tuple[BCState, Metrics]:
    """One step of regression. `key` is unused."""
    del key
    batch = common.standardised(batch, state.standardise)
    loss = partial(actor_loss, actor=_network(config, spec), batch=batch)
    actor, metrics = common.descend(loss, _adam(config), state.actor)
    return state._replace(actor=actor), metrics


def _act(state: BCState, observation: Array, *, config: BCConfig, spec: Spec) -> Normal:
    return common.deterministic(state.actor.params, _network(config, spec), state.standardise(observation))


@lru_cache
def bc(config: BCConfig, spec: Spec) -> Agent:
    """Behaviour cloning as an agent; one minibatch an update. Equal arguments give the same agent.

    Its actor is deterministic: `act` gives a `Normal` with `std` zero.
    """
    settings = (("config", config), ("spec", spec))
    return Agent(init=Bound(_init, settings), update=Bound(_update, settings), act=Bound(_act, settings))
