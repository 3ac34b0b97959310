"""Advantage-weighted actor-critic, AWAC (Nair et al. 2020, arXiv 2006.09359), offline."""

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
from jdp.learning.actors import actor_method, advantage_weighted_loss, gaussian, gaussian_params
from jdp.learning.critics import begin_critics, learn_critics, td_target
from jdp.learning.critics import critic as critics
from jdp.learning.fitting import scaled_rewards
from jdp.learning.observations import observation_affine, standardised
from jdp.learning.optimiser import Trained, begin, constant_adam, descend
from jdp.networks.mlp import mlp
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Network, Normal, Params, Spec, Transition, named_keys


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
    reward_scale: float = 1.0  # multiplies rewards; see `jdp.learning.fitting.reward_scale`
    normalise_observations: bool = True

    def __post_init__(self) -> None:
        check_settings(
            "AWACConfig",
            temperature=(self.temperature, 1e-6, 1e6),
            discount=(self.discount, 0, 1),
            tau=(self.tau, 0, 1),
            critics=(self.critics, 1, 1000),
        )


class AWACState(NamedTuple):
    """The actor, the critics and their target."""

    actor: Trained  # parameters {"mean": MLP, "log_std": [A]}
    critic: Trained  # parameters [N, ...]: N critics
    target_critic: Params  # [N, ...]
    standardise: Affine  # of observations, [O]


def _networks(config: AWACConfig, spec: Spec) -> tuple[Network, Network]:
    actor = mlp((*config.hidden, spec.action_dim))
    return actor, critics(config.hidden, size=config.critics)


def _init(key: Array, transitions: Transition, *, config: AWACConfig, spec: Spec) -> AWACState:
    check_fits(transitions.observation, transitions.action, spec, "agent")
    keys = named_keys(key, "actor", "critic")
    (actor, critic), adam = _networks(config, spec), constant_adam(config)
    trained, target = begin_critics(keys["critic"], critic, adam, spec.observation_dim, spec.action_dim)
    return AWACState(
        actor=begin(adam, gaussian_params(keys["actor"], actor, spec)),
        critic=trained,
        target_critic=target,
        standardise=observation_affine(transitions.observation, enabled=config.normalise_observations),
    )


def _update(
    key: Array, state: AWACState, batch: Transition, *, config: AWACConfig, spec: Spec
) -> tuple[AWACState, Metrics]:
    """Q, then the actor by advantages of the new Q, then the target; `key` is consumed.

    `A(s, a) = min_j Q_j(s, a) - min_j Q_j(s, a')` with one sample `a' ~ pi(s)` stands for the advantage
    in the actor's weights `exp(A / lambda)` (paper, section 4).
    """
    actor, critic = _networks(config, spec)
    adam = constant_adam(config)
    batch = standardised(batch, state.standardise)._replace(reward=config.reward_scale * batch.reward)
    # The actor's samples are not squashed: they may leave the box of actions, beyond which no critic learns.
    both = jnp.concatenate([batch.observation, batch.next_observation])
    pi = gaussian(state.actor.params, actor, both, config.log_std_range)
    sampled, next_action = jnp.split(jnp.clip(pi.sample(key), -1, 1), 2)
    next_q = jnp.min(critic.apply(state.target_critic, batch.next_observation, next_action), axis=0)
    target = td_target(batch.reward, batch.terminal, next_q, config.discount)
    learned, slow, critic_metrics = learn_critics(
        adam, state.critic, state.target_critic, critic, batch, target, config.tau
    )
    twice = jnp.concatenate([batch.observation, batch.observation])
    q = critic.apply(learned.params, twice, jnp.concatenate([batch.action, sampled]))
    q, v = jnp.split(jnp.min(q, axis=0), 2)
    learned_actor, actor_metrics = descend(
        adam,
        state.actor,
        partial(
            advantage_weighted_loss,
            actor=actor,
            batch=batch,
            advantage=q - v,
            beta=1 / config.temperature,
            weight_limit=config.weight_limit,
            log_std_range=config.log_std_range,
        ),
    )
    state = AWACState(learned_actor, learned, slow, state.standardise)
    return state, {**critic_metrics, **actor_metrics}


def _target(state: AWACState, observation: Array, *, config: AWACConfig, spec: Spec) -> Normal:
    actor, _ = _networks(config, spec)
    return gaussian(state.actor.params, actor, state.standardise(observation), config.log_std_range)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same for all datasets."""
    del task
    return presets_of(AWACConfig(), smaller={"hidden": (256, 256)})


@register(
    "agent",
    "awac",
    AWACConfig,
    presets,
    title="AWAC",
    paper="arXiv 2006.09359",
    idea="imitation weighted by the advantage",
    departures="IQL's actor, of mean tanh; the defaults of CORL (arXiv 2210.07105)",
    fit=scaled_rewards,
)
@lru_cache
def awac(config: AWACConfig, spec: Spec) -> Method:
    """AWAC; one minibatch an update. Equal arguments give the same method.

    Its actor is IQL's, of mean `tanh(MLP(s))`. Rewards are multiplied by `config.reward_scale`, of locomotion
    by `jdp.learning.fitting.reward_scale(returns)`.
    """
    return actor_method(_init, _update, _target, config, spec)
