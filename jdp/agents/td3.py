"""TD3 (Fujimoto et al. 2018, arXiv 1802.09477) on minibatches of a dataset.

What TD3+BC, ReBRAC and A2PR share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.errors import UserError, check_settings
from jdp.learning.actors import deterministic
from jdp.learning.critics import critic, critic_loss, td_target
from jdp.learning.observations import observation_affine, standardised
from jdp.learning.optimiser import Trained, begin, constant_adam, copied, descend, polyak
from jdp.networks.mlp import mlp
from jdp.types import Metrics, Network, Normal, Params, Spec, Transition, named_keys

T = TypeVar("T")
CRITIC_STEPS = 2  # critic steps for one actor step: `policy_freq` of TD3


@dataclass(frozen=True)
class TD3Config:
    """Settings of TD3; an algorithm adds its own and changes defaults."""

    policy_noise: float = 0.2  # std of the noise on target actions
    noise_clip: float = 0.5
    discount: float = 0.99
    tau: float = 0.005  # share of the online network in one target update
    learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    critics: int = 2
    hidden: tuple[int, ...] = (256, 256)
    normalise_observations: bool = False

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            discount=(self.discount, 0, 1),
            tau=(self.tau, 0, 1),
            critics=(self.critics, 1, 1000),
        )


class TD3State(NamedTuple):
    """The actor, the critics and the targets of both."""

    actor: Trained
    critic: Trained  # parameters [N, ...]: N critics
    target_actor: Params
    target_critic: Params  # [N, ...]
    standardise: Affine  # of observations, [O]


class Networks(NamedTuple):
    """The actor before its tanh, and the critics."""

    actor: Network
    critic: Network


def plain_networks(config: TD3Config, spec: Spec) -> Networks:
    """The networks of TD3's own architecture."""
    return Networks(mlp((*config.hidden, spec.action_dim)), critic(config.hidden, size=config.critics))


def init(key: Array, transitions: Transition, networks: Networks, config: TD3Config, spec: Spec) -> TD3State:
    """A state whose targets equal the online networks; `key` is consumed."""
    check_fits(transitions.observation, transitions.action, spec, "agent")
    keys = named_keys(key, "actor", "critic")
    observation, action = jnp.zeros(spec.observation_dim), jnp.zeros(spec.action_dim)
    actor = networks.actor.init(keys["actor"], observation)
    critics = networks.critic.init(keys["critic"], observation, action)
    return TD3State(
        actor=begin(constant_adam(config), actor),
        critic=begin(constant_adam(config), critics),
        target_actor=copied(actor),
        target_critic=copied(critics),
        standardise=observation_affine(transitions.observation, enabled=config.normalise_observations),
    )


def smoothed(
    key: Array, state: TD3State, observation: Array, networks: Networks, config: TD3Config
) -> tuple[Array, Array]:
    """The target policy's actions `[B, A]` with clipped noise, and `min_j Q_j` of them `[B]`.

    Target-policy smoothing and clipped double Q-learning (TD3, equations 10 and 14) of the target
    networks at standardised observations `[B, O]`; `key` is consumed.
    """
    mean = deterministic(state.target_actor, networks.actor, observation).mean
    noise = config.policy_noise * jax.random.normal(key, mean.shape)
    action = jnp.clip(mean + jnp.clip(noise, -config.noise_clip, config.noise_clip), -1, 1)
    q = networks.critic.apply(state.target_critic, observation, action)
    return action, jnp.min(q, axis=0)


def minibatches(rows: T) -> list[T]:
    """The leaves `[2 B, ...]` cut into the two minibatches of an update's critic steps.

    Raises:
        UserError: if they cannot be halved.
    """
    count = len(jax.tree.leaves(rows)[0])
    if count % CRITIC_STEPS:
        raise UserError(f"an update draws {CRITIC_STEPS} minibatches; {count} rows cannot be halved")
    size = count // CRITIC_STEPS
    cuts = [slice(step * size, (step + 1) * size) for step in range(CRITIC_STEPS)]
    return [jax.tree.map(lambda x, cut=cut: x[cut], rows) for cut in cuts]


def learn(
    state: TD3State,
    batch: Transition,
    target: Array,
    actor_loss: Callable[[Params, Params, Transition], tuple[Array, Metrics]],
    networks: Networks,
    config: TD3Config,
) -> tuple[TD3State, Metrics]:
    """Two critic steps on the two halves of `batch`, an actor step on the second half, then targets.

    The critics learn `target` `[2 B]`. The target networks stand still until the actor has moved, so
    both minibatches share the pass that made it.

    Args:
        actor_loss: (parameters of the actor, of the critics, minibatch) -> (scalar, metrics).
    """
    adam, trained, metrics, minibatch = constant_adam(config), state.critic, {}, batch
    for minibatch, wanted in minibatches((batch, target)):
        trained, metrics = descend(adam, trained, critic_loss, networks.critic, minibatch, wanted)
    state, actor_metrics = follow(state, trained, minibatch, actor_loss, config)
    return state, {**metrics, **actor_metrics}


def follow(
    state: TD3State,
    trained: Trained,
    minibatch: Transition,
    actor_loss: Callable[[Params, Params, Transition], tuple[Array, Metrics]],
    config: TD3Config,
) -> tuple[TD3State, Metrics]:
    """The actor step on `minibatch` after the critics have become `trained`, then the targets of both."""
    actor, metrics = descend(constant_adam(config), state.actor, actor_loss, trained.params, minibatch)
    state = TD3State(
        actor=actor,
        critic=trained,
        target_actor=polyak(state.target_actor, actor.params, config.tau),
        target_critic=polyak(state.target_critic, trained.params, config.tau),
        standardise=state.standardise,
    )
    return state, metrics


def update(
    key: Array,
    state: TD3State,
    batch: Transition,
    actor_loss: Callable[[Params, Params, Transition], tuple[Array, Metrics]],
    networks: Networks,
    config: TD3Config,
) -> tuple[TD3State, Metrics]:
    """`learn` by targets of the lower critic at smoothed actions; `key` is consumed."""
    batch = standardised(batch, state.standardise)
    _, next_q = smoothed(key, state, batch.next_observation, networks, config)
    wanted = td_target(batch.reward, batch.terminal, next_q, config.discount)
    return learn(state, batch, wanted, actor_loss, networks, config)


def target(state: TD3State, observation: Array, networks: Networks) -> Normal:
    """The actor's action at observations `[..., O]` of the task, `std` zero."""
    return deterministic(state.actor.params, networks.actor, state.standardise(observation))
