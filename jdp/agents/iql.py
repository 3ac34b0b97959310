"""Implicit Q-learning (Kostrikov, Nair and Levine 2021, arXiv 2110.06169).

Longer than other files, for it trains three networks by two optimisers, one after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import Partial

from jdp.agents.presets import presets_of
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.errors import check_settings
from jdp.learning.actors import actor_method, advantage_weighted_loss, gaussian, gaussian_params
from jdp.learning.critics import begin_critics, critic, learn_critics, td_target, value_loss
from jdp.learning.fitting import falling_rates_and_scaled_rewards
from jdp.learning.observations import observation_affine, standardised
from jdp.learning.optimiser import Trained, begin, constant_adam, descend
from jdp.networks.mlp import mlp
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Network, Normal, Params, Spec, Transition, bind, named_keys

ACTION_LIMIT = 1 - 1e-5  # data actions are clipped to it, as in the authors' loader


@dataclass(frozen=True)
class IQLConfig:
    """Settings of IQL; the defaults are those for locomotion (paper, section 5 and appendix B)."""

    expectile: float = 0.7
    beta: float = 3.0  # inverse temperature of the advantage weights
    weight_limit: float = 100.0
    discount: float = 0.99
    tau: float = 0.005  # share of the online network in one target update
    learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    steps: int = 1_000_000  # updates over which the actor's learning rate falls to 0 by a cosine
    log_std_range: tuple[float, float] = (-5.0, 2.0)
    critics: int = 2
    hidden: tuple[int, ...] = (256, 256)
    reward_scale: float = 1.0  # multiplies rewards; see `jdp.learning.fitting.reward_scale`
    normalise_observations: bool = False

    def __post_init__(self) -> None:
        check_settings(
            "IQLConfig",
            expectile=(self.expectile, 0, 1),
            discount=(self.discount, 0, 1),
            tau=(self.tau, 0, 1),
            steps=(self.steps, 1, 1 << 62),
            critics=(self.critics, 1, 1000),
        )


class IQLState(NamedTuple):
    """V, the actor, the critics and their target."""

    value: Trained
    actor: Trained  # parameters {"mean": MLP, "log_std": [A]}
    critic: Trained  # parameters [N, ...]: N critics
    target_critic: Params  # [N, ...]
    standardise: Affine  # of observations, [O]


def _networks(config: IQLConfig, spec: Spec) -> tuple[Network, Network, Network]:
    """V, the actor and the critics."""
    value, actor = (mlp((*config.hidden, out), initialiser="orthogonal") for out in (1, spec.action_dim))
    return value, actor, critic(config.hidden, size=config.critics, initialiser="orthogonal")


def _actor_adam(config: IQLConfig) -> optax.GradientTransformation:
    cosine = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return optax.adam(cosine, eps=config.adam_eps)


def _init(key: Array, transitions: Transition, *, config: IQLConfig, spec: Spec) -> IQLState:
    check_fits(transitions.observation, transitions.action, spec, "agent")
    keys, (o, a) = named_keys(key, "value", "actor", "critic"), (spec.observation_dim, spec.action_dim)
    (value, actor, judges), adam = _networks(config, spec), constant_adam(config)
    trained, target = begin_critics(keys["critic"], judges, adam, o, a)
    return IQLState(
        value=begin(adam, value.init(keys["value"], jnp.zeros(o))),
        actor=begin(_actor_adam(config), gaussian_params(keys["actor"], actor, spec)),
        critic=trained,
        target_critic=target,
        standardise=observation_affine(transitions.observation, enabled=config.normalise_observations),
    )


def _prepare(batch: Transition, state: IQLState, config: IQLConfig) -> Transition:
    return standardised(batch, state.standardise)._replace(
        action=jnp.clip(batch.action, -ACTION_LIMIT, ACTION_LIMIT),
        reward=config.reward_scale * batch.reward,
    )


def _update(
    key: Array, state: IQLState, batch: Transition, *, config: IQLConfig, spec: Spec
) -> tuple[IQLState, Metrics]:
    """V, then the actor, then Q, then the target: the order of the authors' code. `key` is unused."""
    del key
    (value_net, actor_net, judges), adam = _networks(config, spec), constant_adam(config)
    batch = _prepare(batch, state, config)
    q = jnp.min(judges.apply(state.target_critic, batch.observation, batch.action), axis=0)
    value, value_metrics = descend(
        adam,
        state.value,
        partial(value_loss, value=value_net, expectile=config.expectile),
        batch.observation,
        q,
    )
    both = jnp.concatenate([batch.observation, batch.next_observation])
    v, next_v = jnp.split(value_net.apply(value.params, both)[..., 0], 2)  # of the new V
    actor, actor_metrics = descend(  # equation 7
        _actor_adam(config),
        state.actor,
        partial(
            advantage_weighted_loss,
            actor=actor_net,
            batch=batch,
            advantage=q - v,
            beta=config.beta,
            weight_limit=config.weight_limit,
            log_std_range=config.log_std_range,
        ),
    )
    target = td_target(batch.reward, batch.terminal, next_v, config.discount)
    trained, slow, critic_metrics = learn_critics(
        adam, state.critic, state.target_critic, judges, batch, target, config.tau
    )
    state = IQLState(value, actor, trained, slow, state.standardise)
    return state, {**value_metrics, **actor_metrics, **critic_metrics}


def action_value(state: IQLState, config: IQLConfig, spec: Spec) -> Partial:
    """Q as a function of observations `[B, O]` in the units of the task and actions `[B, A]`: `[B]`."""
    return bind(_action_value, state.target_critic, state.standardise, config=config, spec=spec)


def _action_value(
    params: Params, standardise: Affine, observation: Array, action: Array, *, config: IQLConfig, spec: Spec
) -> Array:
    judges = _networks(config, spec)[2]
    q = judges.apply(params, standardise(observation), jnp.clip(action, -ACTION_LIMIT, ACTION_LIMIT))
    return jnp.min(q, axis=0) / config.reward_scale


def _target(state: IQLState, observation: Array, *, config: IQLConfig, spec: Spec) -> Normal:
    actor = _networks(config, spec)[1]
    return gaussian(state.actor.params, actor, state.standardise(observation), config.log_std_range)


def presets(task: Task) -> Mapping[str, Preset]:
    """Maze2d's as CORL has them, which standardises observations; see `fit` for what depends on returns."""
    return presets_of(IQLConfig(normalise_observations=task.stays))


@register(
    "agent",
    "iql",
    IQLConfig,
    presets,
    title="IQL",
    paper="arXiv 2110.06169",
    idea="expectile regression of V, so that no unseen action is ever asked for",
    fit=falling_rates_and_scaled_rewards,
    critic=action_value,
)
@lru_cache
def iql(config: IQLConfig, spec: Spec) -> Method:
    """IQL; one minibatch an update. Equal arguments give the same method.

    It is evaluated by its mean action, as the authors do. Rewards are multiplied by `config.reward_scale`;
    for locomotion the authors use `jdp.learning.fitting.reward_scale(returns)`.
    """
    return actor_method(_init, _update, _target, config, spec)
