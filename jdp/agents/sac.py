"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): the core of SAC-N, EDAC, CQL and MOPO's kin.

It is registered as no agent. Longer than other files, for six methods are made of its parts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data.checks import check_fits
from jdp.data.normalise import Affine
from jdp.errors import check_settings
from jdp.learning import critics
from jdp.learning.actors import actor_method, squashed
from jdp.learning.critics import begin_critics, soft_target
from jdp.learning.observations import observation_affine, standardised
from jdp.learning.optimiser import Trained, begin, descend, polyak, step
from jdp.networks.mlp import mlp
from jdp.types import Method, Metrics, Network, Params, Spec, TanhNormal, Transition, named_keys

LAST_LIMITS = {"edac": (1e-3, 3e-3)}  # first weights of the last layers of (actor, critic), by initialiser


@dataclass(frozen=True)
class SACConfig:
    """Settings of SAC; the defaults are those of the paper (table 1), with its two critics."""

    discount: float = 0.99
    tau: float = 0.005  # share of the online network in one target update
    actor_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    alpha_learning_rate: float = 3e-4
    adam_eps: float = 1e-8
    critics: int = 2
    hidden: tuple[int, ...] = (256, 256)
    initialiser: str = "fan_in"  # of `jdp.networks.mlp.mlp`; "edac" also makes the first outputs small
    log_std_range: tuple[float, float] = (-5.0, 2.0)
    target_entropy: float | None = None  # None: minus the number of action dimensions
    initial_alpha: float = 1.0
    backup_entropy: bool = True  # whether targets contain the entropy of the next action
    normalise_observations: bool = False

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            discount=(self.discount, 0, 1),
            tau=(self.tau, 0, 1),
            critics=(self.critics, 1, 1000),
            initial_alpha=(self.initial_alpha, 1e-8, 1e8),
        )

    def layers(self) -> dict[str, Any]:
        """Options of `jdp.networks.mlp.mlp`, of actor and critics; kin with other layers say so here."""
        return {"initialiser": self.initialiser}


class SACState(NamedTuple):
    """The temperature, the actor, the critics and their target."""

    log_alpha: Trained  # parameters []: log of the temperature
    actor: Trained
    critic: Trained  # parameters [N, ...]: N critics
    target_critic: Params  # [N, ...]
    standardise: Affine  # of observations, [O]


class Networks(NamedTuple):
    """The networks of a config; the actor's outputs are `[..., 2 A]`, see `policy`."""

    actor: Network
    critic: Network


Actor = Callable[[Array], TanhNormal]  # observation [..., O] -> the policy there
Penalty = Callable[[Params, Network, Array, Transition, Actor], tuple[Array, Metrics]]
# penalty(critic parameters, critic, key, batch, actor) -> (scalar added to the critic loss, metrics);
# the batch is standardised, the actor is the improved one and the key is consumed


def networks(config: SACConfig, spec: Spec) -> Networks:
    """The actor and the N critics that `config` describes."""
    actor_limit, critic_limit = LAST_LIMITS.get(config.initialiser, (None, None))
    actor = mlp((*config.hidden, 2 * spec.action_dim), **config.layers(), last_limit=actor_limit)
    critic = critics.critic(config.hidden, size=config.critics, **config.layers(), last_limit=critic_limit)
    return Networks(actor, critic)


class Optimisers(NamedTuple):
    """Of the three that learn."""

    log_alpha: optax.GradientTransformation
    actor: optax.GradientTransformation
    critic: optax.GradientTransformation


def optimisers(config: SACConfig) -> Optimisers:
    """Adam of constant rates."""
    rates = (config.alpha_learning_rate, config.actor_learning_rate, config.critic_learning_rate)
    return Optimisers(*(optax.adam(rate, eps=config.adam_eps) for rate in rates))


def policy(params: Params, *, actor: Network, config: SACConfig) -> Actor:
    """The policy of the actor's parameters, at standardised observations."""
    return partial(squashed, params, actor=actor, log_std_range=config.log_std_range)


def alpha_loss(log_alpha: Array, log_prob: Array, target_entropy: float) -> tuple[Array, Metrics]:
    """`-log alpha (log pi + target)`: alpha falls while the entropy is above its target.

    The paper's equation 18 has alpha in the place of log alpha; the authors' later code has this.
    """
    loss = -log_alpha * jnp.mean(log_prob + target_entropy)
    return loss, {"alpha": jnp.exp(log_alpha), "entropy": -jnp.mean(log_prob)}


def actor_loss(
    params: Params,
    key: Array,
    log_alpha: Trained,
    observation: Array,
    q: Callable[[Array, Array], Array],
    nets: Networks,
    config: SACConfig,
) -> tuple[Array, tuple[Metrics, Trained]]:
    """`alpha log pi(a | s) - min_j Q_j(s, a)` of one draw `a` (equation 7), with alpha after its own step.

    `q(observation, action) -> [N, B]`. Also gives `(metrics, the temperature, trained)`: both steps
    use the same draw, so the actor runs once.
    """
    action, log_prob = policy(params, actor=nets.actor, config=config)(observation).sample_and_log_prob(key)
    target_entropy = -float(action.shape[-1]) if config.target_entropy is None else config.target_entropy
    log_alpha, metrics = descend(
        optimisers(config).log_alpha,
        log_alpha,
        partial(alpha_loss, log_prob=jax.lax.stop_gradient(log_prob), target_entropy=target_entropy),
    )
    loss = jnp.mean(jnp.exp(log_alpha.params) * log_prob - jnp.min(q(observation, action), axis=0))
    return loss, ({**metrics, "actor_loss": loss}, log_alpha)


def actor_step(
    key: Array,
    log_alpha: Trained,
    actor: Trained,
    observation: Array,
    q: Callable[[Array, Array], Array],
    nets: Networks,
    config: SACConfig,
) -> tuple[Trained, Trained, Metrics]:
    """One step of the temperature, then of the actor: `(log_alpha, actor, metrics)`; see `actor_loss`."""
    gradient, (metrics, log_alpha) = jax.grad(actor_loss, has_aux=True)(
        actor.params, key, log_alpha, observation, q, nets, config
    )
    taken = step(optimisers(config).actor, gradient, actor.optimiser, actor.params)
    return log_alpha, Trained(*taken), metrics


def begin_sac(
    key: Array, config: SACConfig, spec: Spec, actor_sees: int | None = None
) -> tuple[Trained, Trained, Trained, Params]:
    """`(log_alpha, actor, critic, target_critic)` before the first update, of `networks`; consumes `key`.

    Args:
        actor_sees: entries of its conditions, where they are not the observation.
    """
    keys, nets, adam = named_keys(key, "actor", "critic"), networks(config, spec), optimisers(config)
    o = spec.observation_dim
    critic, target = begin_critics(keys["critic"], nets.critic, adam.critic, o, spec.action_dim)
    actor = nets.actor.init(keys["actor"], jnp.zeros(o if actor_sees is None else actor_sees))
    # The dtype is named: a weakly typed scalar would become strong in an update, and compile it again.
    log_alpha = jnp.array(math.log(config.initial_alpha), jnp.float32)
    return begin(adam.log_alpha, log_alpha), begin(adam.actor, actor), critic, target


def sac_init(key: Array, transitions: Transition, *, config: SACConfig, spec: Spec) -> SACState:
    """The state before the first update; `transitions` give the statistics of observations."""
    check_fits(transitions.observation, transitions.action, spec, "agent")
    standardise = observation_affine(transitions.observation, enabled=config.normalise_observations)
    return SACState(*begin_sac(key, config, spec), standardise)


def sac_update(
    key: Array,
    state: SACState,
    batch: Transition,
    *,
    config: SACConfig,
    spec: Spec,
    penalty: Penalty | None = None,
) -> tuple[SACState, Metrics]:
    """The temperature, the actor (new temperature, old critics), the critics (new actor), then their target.

    This is the order of the code of SAC-N and EDAC. `penalty` is what an algorithm adds to the critic
    loss; the rest is the same for all of them.
    """
    keys = named_keys(key, "action", "next_action", "penalty")
    nets = networks(config, spec)
    batch = standardised(batch, state.standardise)
    q, learned = partial(nets.critic.apply, state.critic.params), (state.log_alpha, state.actor)
    log_alpha, actor, metrics = actor_step(
        keys["action"], *learned, batch.observation, q, nets=nets, config=config
    )

    improved = policy(actor.params, actor=nets.actor, config=config)
    next_action, next_log_prob = improved(batch.next_observation).sample_and_log_prob(keys["next_action"])
    next_q = nets.critic.apply(state.target_critic, batch.next_observation, next_action)
    alpha = jnp.exp(log_alpha.params) if config.backup_entropy else jnp.zeros(())
    target = soft_target(next_q, next_log_prob, alpha, batch, config.discount)

    def critic_loss(params: Params) -> tuple[Array, Metrics]:
        loss, metrics = critics.critic_loss(params, nets.critic, batch, target)
        if penalty is None:
            return loss, metrics
        extra, more = penalty(params, nets.critic, keys["penalty"], batch, improved)
        return loss + extra, {**metrics, **more}

    critic, critic_metrics = descend(optimisers(config).critic, state.critic, critic_loss)
    slow = polyak(state.target_critic, critic.params, config.tau)
    state = SACState(log_alpha, actor, critic, slow, state.standardise)
    return state, {**metrics, **critic_metrics}


def sac_target(state: SACState, observation: Array, *, config: SACConfig, spec: Spec) -> TanhNormal:
    """The policy at observations `[..., O]`, in the units of the task."""
    actor = networks(config, spec).actor
    return policy(state.actor.params, actor=actor, config=config)(state.standardise(observation))


@lru_cache
def sac(config: SACConfig, spec: Spec) -> Method:
    """SAC; one minibatch an update. Equal arguments give the same method.

    Alone it is the baseline that overestimates actions the data lacks; SAC-N is it with more critics.
    """
    return actor_method(sac_init, sac_update, sac_target, config, spec)
