"""Advantage-weighted actor-critic, AWAC (Nair et al. 2020, arXiv 2006.09359), offline."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jdp.agents import common
from jdp.agents.common import Learner, Standardiser
from jdp.networks.mlp import mlp
from jdp.types import Agent, Bound, Metrics, Network, Normal, Params, Spec, Transition, named_keys


@dataclass(frozen=True)
class AWACConfig:
    """Settings of AWAC; the defaults are CORL's (arXiv 2210.07105) for locomotion."""

    temperature: float = 1 / 3  # lambda of the advantage weights; 0.1 for other tasks
    weight_limit: float = 100.0
    discount: float = 0.99
    tau: float = 0.005  # share of the online network in one target update
    learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    log_std_range: tuple[float, float] = (-20.0, 2.0)
    critics: int = 2
    hidden: tuple[int, ...] = (256, 256, 256)
    reward_scale: float = 1.0  # multiplies rewards; see `iql_reward_scale`
    normalise_observations: bool = True

    def __post_init__(self) -> None:
        common.check_settings(
            "AWACConfig",
            temperature=(self.temperature, 1e-6, 1e6),
            discount=(self.discount, 0, 1),
            tau=(self.tau, 0, 1),
            critics=(self.critics, 1, 1000),
        )


class AWACState(NamedTuple):
    """The actor, the critics and their target."""

    actor: Learner  # parameters {"mean": MLP, "log_std": [A]}
    critic: Learner  # parameters [N, ...]: N critics
    target_critic: Params  # [N, ...]
    standardise: Standardiser  # of observations, [O]


def _networks(config: AWACConfig, spec: Spec) -> tuple[Network, Network]:
    actor = mlp((*config.hidden, spec.action_dim))
    return actor, common.critic(config.hidden, size=config.critics)


def _adam(config: AWACConfig) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate, eps=config.adam_eps)


def _init(key: Array, transitions: Transition, *, config: AWACConfig, spec: Spec) -> AWACState:
    common.check_fits(transitions, spec)
    keys = named_keys(key, "actor", "critic")
    actor, critic = _networks(config, spec)
    observation, action = jnp.zeros(spec.observation_dim), jnp.zeros(spec.action_dim)
    critic_params = critic.init(keys["critic"], observation, action)
    return AWACState(
        actor=common.learner(common.gaussian_params(keys["actor"], actor, spec), _adam(config)),
        critic=common.learner(critic_params, _adam(config)),
        target_critic=common.copied(critic_params),
        standardise=common.standardiser(transitions.observation, enabled=config.normalise_observations),
    )


def _update(
    key: Array, state: AWACState, batch: Transition, *, config: AWACConfig, spec: Spec
) -> tuple[AWACState, Metrics]:
    """Q, then the actor by advantages of the new Q, then the target; `key` is consumed.

    `A(s, a) = min_j Q_j(s, a) - min_j Q_j(s, a')` with one sample `a' ~ pi(s)` stands for the advantage
    in the actor's weights `exp(A / lambda)` (paper, section 4).
    """
    actor, critic = _networks(config, spec)
    adam = _adam(config)
    batch = common.standardised(batch, state.standardise)._replace(reward=config.reward_scale * batch.reward)
    # The actor's samples are not squashed: they may leave the box of actions, beyond which no critic learns.
    both = jnp.concatenate([batch.observation, batch.next_observation])
    pi = common.gaussian(state.actor.params, actor, both, config.log_std_range)
    sampled, next_action = jnp.split(jnp.clip(pi.sample(key), -1, 1), 2)
    next_q = jnp.min(critic.apply(state.target_critic, batch.next_observation, next_action), axis=0)
    target = common.td_target(batch.reward, batch.terminal, next_q, config.discount)
    learned, critic_metrics = common.descend(
        partial(common.critic_loss, critic=critic, batch=batch, target=target), adam, state.critic
    )
    twice = jnp.concatenate([batch.observation, batch.observation])
    q = critic.apply(learned.params, twice, jnp.concatenate([batch.action, sampled]))
    q, v = jnp.split(jnp.min(q, axis=0), 2)
    learned_actor, actor_metrics = common.descend(
        partial(
            common.advantage_weighted_loss,
            actor=actor,
            batch=batch,
            advantage=q - v,
            beta=1 / config.temperature,
            weight_limit=config.weight_limit,
            log_std_range=config.log_std_range,
        ),
        adam,
        state.actor,
    )
    state = AWACState(
        actor=learned_actor,
        critic=learned,
        target_critic=common.polyak(state.target_critic, learned.params, config.tau),
        standardise=state.standardise,
    )
    return state, {**critic_metrics, **actor_metrics}


def _act(state: AWACState, observation: Array, *, config: AWACConfig, spec: Spec) -> Normal:
    actor, _ = _networks(config, spec)
    return common.gaussian(state.actor.params, actor, state.standardise(observation), config.log_std_range)


@lru_cache
def awac(config: AWACConfig, spec: Spec) -> Agent:
    """AWAC as an agent; one minibatch an update. Equal arguments give the same agent.

    Evaluate it with the mean of `act`. Its actor is IQL's, of mean `tanh(MLP(s))`. Rewards are
    multiplied by `config.reward_scale`; for locomotion use `iql_reward_scale(returns)`.
    """
    settings = (("config", config), ("spec", spec))
    return Agent(init=Bound(_init, settings), update=Bound(_update, settings), act=Bound(_act, settings))
