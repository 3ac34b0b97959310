"""What Diffusion-QL, EDP and IDQL share: a diffusion actor beside two critics, and a choice by Q."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jdp.agents import common as agents
from jdp.agents.common import Learner, Standardiser
from jdp.data.checks import check_fits
from jdp.data.segments import SegmentRows
from jdp.learning import averaged
from jdp.learning.averaged import Averaged
from jdp.policies import actions, common
from jdp.policies.actions import ActorConfig
from jdp.types import (
    Bound,
    Metrics,
    Network,
    Params,
    Policy,
    PolicyLearner,
    Segments,
    Spec,
    Transition,
    named_keys,
)

ONE_STEP = (0, 1)  # offsets of the segments of a transition


@dataclass(frozen=True)
class CriticConfig:
    """Twin critics and their target."""

    critic_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the critics."""
    critic_activation: str = "mish"
    """One of `jdp.networks.mlp.ACTIVATIONS`."""
    critic_layer_norm: bool = False
    """Layer norm in the critics."""
    critic_learning_rate: float = 3e-4
    """Of the critics' Adam, constant."""
    discount: float = 0.99
    """Of a step."""
    tau: float = 0.005
    """Share of the online network in one target update."""
    reward_scale: float = 1.0
    """Multiplies rewards on tasks without goals."""
    reward_shift: float = 0.0
    """Is added to them then."""

    def __post_init__(self) -> None:
        agents.check_settings(type(self).__name__, discount=(self.discount, 0, 1), tau=(self.tau, 0, 1))

    def critic(self) -> Network:
        """Two critics as one: `apply(params, seen [..., C], action [..., A]) -> [2, ...]`."""
        return agents.critic(
            self.critic_hidden, activation=self.critic_activation, layer_norm=self.critic_layer_norm
        )

    def critic_optimiser(self) -> optax.GradientTransformation:
        """Adam of a constant learning rate."""
        return optax.adam(self.critic_learning_rate)

    def transitions(self, batch: Segments, standardise: Standardiser, spec: Spec) -> Transition:
        """See `jdp.policies.common.transitions`."""
        return common.transitions(batch, standardise, spec, self.reward_scale, self.reward_shift)


@dataclass(frozen=True)
class ActorCriticConfig(ActorConfig, CriticConfig):
    """A diffusion of actions from which one is chosen by its value."""

    candidates: int = 50
    """Actions that are sampled for each that is executed."""
    temperature: float = 0.0
    """An action is drawn from softmax(Q / temperature); 0: the best."""

    def __post_init__(self) -> None:
        ActorConfig.__post_init__(self)
        CriticConfig.__post_init__(self)
        agents.check_settings(type(self).__name__, candidates=(self.candidates, 1, 1 << 20))


class ActorCriticState(NamedTuple):
    """The actor with its averaged weights, the critics and their target, and V where there is one."""

    actor: Averaged
    critic: Learner  # parameters [2, ...]
    target_critic: Params  # [2, ...]
    standardise: Standardiser  # of observations, [O]
    value: Learner | None = None


def init(key: Array, rows: SegmentRows, *, config: ActorCriticConfig, spec: Spec) -> ActorCriticState:
    """A state whose target equals the critics; `key` is consumed."""
    check_fits(rows.observation, rows.action, spec, "policy")
    keys = named_keys(key, "actor", "critic")
    seen, action = jnp.zeros((1, spec.observation_dim + len(spec.goal))), jnp.zeros((1, spec.action_dim))
    critic = config.critic().init(keys["critic"], seen, action)
    actor = config.network().init(keys["actor"], action, jnp.zeros(1), seen)
    return ActorCriticState(
        actor=averaged.begin(config.optimiser(), actor),
        critic=agents.learner(critic, config.critic_optimiser()),
        target_critic=agents.copied(critic),
        standardise=agents.standardiser(rows.observation),
    )


def lower_q(params: Params, seen: Array, action: Array, config: CriticConfig) -> Array:
    """`min_j Q_j`, `[...]`, at conditions `[..., C]` and actions `[..., A]`."""
    return jnp.min(config.critic().apply(params, seen, action), axis=0)


def learn(
    state: ActorCriticState,
    step: Transition,
    target: Array,
    actor_loss: Callable[[Params, Params], tuple[Array, Metrics]],
    config: ActorCriticConfig,
) -> tuple[ActorCriticState, Metrics]:
    """The critics towards `target` `[B]`, then the actor, then the target critics.

    Args:
        actor_loss: (parameters of the actor, of the critics) -> (scalar, metrics).
    """
    critic, critic_metrics = agents.descend(
        partial(agents.critic_loss, critic=config.critic(), batch=step, target=target),
        config.critic_optimiser(),
        state.critic,
    )
    actor, actor_metrics = averaged.descend(
        config.optimiser(), state.actor, lambda params: actor_loss(params, critic.params), config.ema
    )
    target_critic = agents.polyak(state.target_critic, critic.params, config.tau)
    state = state._replace(actor=actor, critic=critic, target_critic=target_critic)
    return state, {**critic_metrics, **actor_metrics}


def act(
    key: Array,
    state: ActorCriticState,
    carry: Any,
    observation: Array,
    goal: Array,
    *,
    config: ActorCriticConfig,
    spec: Spec,
) -> tuple[Any, Array]:
    """Of `config.candidates` samples of the averaged actor one, chosen by the target critics' minimum."""
    keys = named_keys(key, "sample", "select")
    seen = common.condition(state.standardise, observation, goal, spec)
    found = actions.candidates(
        keys["sample"], state.actor.ema, seen, config.candidates, spec.action_dim, config
    )
    many = jnp.broadcast_to(seen[None], (config.candidates, *seen.shape))
    q = lower_q(state.target_critic, many, found, config)
    return carry, actions.select(keys["select"], found, q, config.temperature)


def policy_learner(
    init_: Callable, update: Callable, act_: Callable, config: Any, spec: Spec
) -> PolicyLearner:
    """A learner of one-step policies of three module-level functions with `config` and `spec` bound."""
    settings = (("config", config), ("spec", spec))
    policy = Policy(init=common.nothing, act=Bound(act_, settings))
    return PolicyLearner(Bound(init_, settings), Bound(update, settings), policy, ONE_STEP)
