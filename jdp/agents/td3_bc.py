"""TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), on TD3 (Fujimoto et al. 2018, arXiv 1802.09477)."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.agents import common
from jdp.agents.common import Learner, Standardiser
from jdp.errors import UserError
from jdp.networks.mlp import mlp
from jdp.types import Agent, Bound, Metrics, Network, Normal, Params, Spec, Transition, named_keys

CRITIC_STEPS = 2  # critic steps for one actor step: `policy_freq` of TD3


@dataclass(frozen=True)
class TD3BCConfig:
    """Settings of TD3+BC; the defaults are those of the paper (table 1)."""

    alpha: float = 2.5  # weight of Q against behaviour cloning
    policy_noise: float = 0.2  # std of the noise on target actions
    noise_clip: float = 0.5
    discount: float = 0.99
    tau: float = 0.005  # share of the online network in one target update
    learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    critics: int = 2
    hidden: tuple[int, ...] = (256, 256)
    normalise_observations: bool = True

    def __post_init__(self) -> None:
        common.check_settings(
            "TD3BCConfig",
            discount=(self.discount, 0, 1),
            tau=(self.tau, 0, 1),
            critics=(self.critics, 1, 1000),
        )


class TD3BCState(NamedTuple):
    """The actor, the critics and the targets of both."""

    actor: Learner
    critic: Learner  # parameters [N, ...]: N critics
    target_actor: Params
    target_critic: Params  # [N, ...]
    standardise: Standardiser  # of observations, [O]


def _networks(config: TD3BCConfig, spec: Spec) -> tuple[Network, Network]:
    actor = mlp((*config.hidden, spec.action_dim))
    return actor, common.critic(config.hidden, size=config.critics)


def _adam(config: TD3BCConfig) -> optax.GradientTransformation:
    return optax.adam(config.learning_rate, eps=config.adam_eps)


def target_value(key: Array, state: TD3BCState, batch: Transition, config: TD3BCConfig, spec: Spec) -> Array:
    """`[B]`, the critics' regression target with target-policy smoothing (TD3, equations 10 and 14).

    Observations in `batch` are standardised; `key` is consumed.
    """
    actor, critic = _networks(config, spec)
    noise = config.policy_noise * jax.random.normal(key, batch.action.shape)
    noise = jnp.clip(noise, -config.noise_clip, config.noise_clip)
    next_action = jnp.tanh(actor.apply(state.target_actor, batch.next_observation)) + noise
    next_q = critic.apply(state.target_critic, batch.next_observation, jnp.clip(next_action, -1, 1))
    return common.td_target(batch.reward, batch.terminal, jnp.min(next_q, axis=0), config.discount)


def actor_loss(
    params: Params, actor: Network, critic: Network, q_params: Params, batch: Transition, alpha: float
) -> tuple[Array, Metrics]:
    """`-lambda Q_1(s, pi(s)) + (pi(s) - a)^2` with `lambda = alpha / mean |Q_1|` (equations 3 to 5)."""
    action = jnp.tanh(actor.apply(params, batch.observation))
    q = critic.apply(common.first(q_params), batch.observation, action)[0]  # [B]
    weight = alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    # The mean is over action dimensions too, as in the authors' code; the paper writes the squared norm.
    bc = jnp.mean(jnp.square(action - batch.action))
    loss = -weight * jnp.mean(q) + bc
    return loss, {"actor_loss": loss, "bc_loss": bc, "q_weight": weight}


def _init(key: Array, transitions: Transition, *, config: TD3BCConfig, spec: Spec) -> TD3BCState:
    common.check_fits(transitions, spec)
    keys = named_keys(key, "actor", "critic")
    observation, action = jnp.zeros(spec.observation_dim), jnp.zeros(spec.action_dim)
    actor, critic = _networks(config, spec)
    actor_params = actor.init(keys["actor"], observation)
    critic_params = critic.init(keys["critic"], observation, action)
    return TD3BCState(
        actor=common.learner(actor_params, _adam(config)),
        critic=common.learner(critic_params, _adam(config)),
        # Copies: the fit loop donates the state, and one buffer cannot be donated twice.
        target_actor=jax.tree.map(jnp.copy, actor_params),
        target_critic=jax.tree.map(jnp.copy, critic_params),
        standardise=common.standardiser(transitions.observation, enabled=config.normalise_observations),
    )


def _update(
    key: Array, state: TD3BCState, batch: Transition, *, config: TD3BCConfig, spec: Spec
) -> tuple[TD3BCState, Metrics]:
    """Two critic steps on the two halves of `batch`, an actor step on the second half, then targets."""
    rows = batch.reward.shape[0]
    if rows % CRITIC_STEPS:
        raise UserError(f"TD3+BC draws {CRITIC_STEPS} minibatches an update; {rows} rows cannot be halved")
    actor, critic = _networks(config, spec)
    adam = _adam(config)
    batch = batch._replace(
        observation=state.standardise(batch.observation),
        next_observation=state.standardise(batch.next_observation),
    )
    # The target networks stand still until the actor has moved, so both minibatches share one pass.
    target = target_value(key, state, batch, config, spec)
    learned, metrics = state.critic, {}
    minibatch = batch
    for step in range(CRITIC_STEPS):
        half = slice(step * rows // CRITIC_STEPS, (step + 1) * rows // CRITIC_STEPS)
        minibatch = jax.tree.map(lambda x, half=half: x[half], batch)
        loss = partial(common.critic_loss, critic=critic, batch=minibatch, target=target[half])
        learned, metrics = common.descend(loss, adam, learned)
    loss = partial(
        actor_loss,
        actor=actor,
        critic=critic,
        q_params=learned.params,
        batch=minibatch,
        alpha=config.alpha,
    )
    learned_actor, actor_metrics = common.descend(loss, adam, state.actor)
    state = TD3BCState(
        actor=learned_actor,
        critic=learned,
        target_actor=common.polyak(state.target_actor, learned_actor.params, config.tau),
        target_critic=common.polyak(state.target_critic, learned.params, config.tau),
        standardise=state.standardise,
    )
    return state, {**metrics, **actor_metrics}


def _act(state: TD3BCState, observation: Array, *, config: TD3BCConfig, spec: Spec) -> Normal:
    actor, _ = _networks(config, spec)
    mean = jnp.tanh(actor.apply(state.actor.params, state.standardise(observation)))
    return Normal(mean, jnp.zeros_like(mean))


@lru_cache
def td3_bc(config: TD3BCConfig, spec: Spec) -> Agent:
    """TD3+BC as an agent whose `update` takes a batch of `2 B` rows: one minibatch a critic step.

    An update is two steps of the authors' loop (`policy_freq` 2), in their order. Its actor is
    deterministic: `act` gives a `Normal` with `std` zero. Equal arguments give the same agent.
    """
    settings = (("config", config), ("spec", spec))
    return Agent(
        init=Bound(_init, settings),
        update=Bound(_update, settings),
        act=Bound(_act, settings),
        batches=CRITIC_STEPS,
    )
