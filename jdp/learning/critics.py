"""Critics: ensembles of Q networks, their targets and losses."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.errors import check_settings
from jdp.learning.optimiser import Trained, begin, copied, descend, polyak
from jdp.networks.mlp import mlp
from jdp.types import Bound, Metrics, Network, Params, Transition


def _critic_init(key: Array, observation: Array, action: Array, *, member: Network, size: int) -> Params:
    x = jnp.concatenate([observation, action], axis=-1)
    return jax.vmap(member.init, in_axes=(0, None))(jax.random.split(key, size), x)


def _critic_apply(params: Params, observation: Array, action: Array, *, member: Network) -> Array:
    x = jnp.concatenate([observation, action], axis=-1)
    return jax.vmap(member.apply, in_axes=(0, None))(params, x)[..., 0]


def critic(hidden: tuple[int, ...], *, size: int = 2, **options: Any) -> Network:
    """`size` independent Q networks as one: parameters carry a leading axis `[N]`.

    `init(key, observation [..., O], action [..., A])`, `apply(params, observation, action) -> [N, ...]`;
    `options` are those of `jdp.networks.mlp.mlp`.
    """
    member = mlp((*hidden, 1), **options)
    return Network(
        init=Bound(_critic_init, (("member", member), ("size", size))),
        apply=Bound(_critic_apply, (("member", member),)),
    )


def first(params: Params) -> Params:
    """The first member of an ensemble, still with its leading axis `[1]`."""
    return jax.tree.map(lambda x: x[:1], params)


def td_target(reward: Array, terminal: Array, next_value: Array, discount: float) -> Array:
    """`r + discount * (1 - d) * V(s')`, all `[B]`; nothing is bootstrapped beyond a terminal."""
    return reward + discount * (1 - terminal) * next_value


def critic_loss(params: Params, critic: Network, batch: Transition, target: Array) -> tuple[Array, Metrics]:
    """Mean squared error to `target` `[B]`, summed over the critics of the ensemble `critic`."""
    q = critic.apply(params, batch.observation, batch.action)  # [N, B]
    loss = jnp.sum(jnp.mean(jnp.square(q - target[None]), axis=1))
    return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_mean": jnp.mean(target)}


def soft_target(
    next_q: Array, next_log_prob: Array, alpha: Array, batch: Transition, discount: float
) -> Array:
    """`[B]`, `r + discount (1 - d) (min_j Q_j(s', a') - alpha log pi(a' | s'))`; `next_q` is `[N, B]`.

    An unlikely action has a negative log density, so it raises the target: entropy is a reward.
    """
    next_value = jnp.min(next_q, axis=0) - alpha * next_log_prob
    return td_target(batch.reward, batch.terminal, next_value, discount)


def value_loss(
    params: Params, observation: Array, q: Array, *, value: Network, expectile: float
) -> tuple[Array, Metrics]:
    """Expectile regression `|expectile - 1(u < 0)| u^2` of `u = q - V(s)`; `q` is `[B]`.

    IQL (arXiv 2110.06169), equation 5.
    """
    v = value.apply(params, observation)[..., 0]
    u = q - v
    weight = jnp.where(u < 0, 1 - expectile, expectile)
    loss = jnp.mean(weight * jnp.square(u))
    return loss, {"value_loss": loss, "v_mean": jnp.mean(v)}


def begin_critics(
    key: Array, critic: Network, optimiser: optax.GradientTransformation, seen: int, actions: int
) -> tuple[Trained, Params]:
    """Critics of conditions `[seen]` and actions `[actions]`, and an equal target; `key` is consumed."""
    params = critic.init(key, jnp.zeros(seen), jnp.zeros(actions))
    return begin(optimiser, params), copied(params)


def learn_critics(
    optimiser: optax.GradientTransformation,
    trained: Trained,
    slow: Params,
    critic: Network,
    batch: Transition,
    target: Array,
    tau: float,
) -> tuple[Trained, Params, Metrics]:
    """One step on `critic_loss`, after which the target critics `slow` move by `tau`."""
    learned, metrics = descend(optimiser, trained, critic_loss, critic, batch, target)
    return learned, polyak(slow, learned.params, tau), metrics


@dataclass(frozen=True)
class TwinCriticConfig:
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
    """Is added to the scaled rewards of tasks without goals."""

    def __post_init__(self) -> None:
        check_settings(type(self).__name__, discount=(self.discount, 0, 1), tau=(self.tau, 0, 1))

    def critic(self) -> Network:
        """Two critics as one: `apply(params, seen [..., C], action [..., A]) -> [2, ...]`."""
        return critic(
            self.critic_hidden, activation=self.critic_activation, layer_norm=self.critic_layer_norm
        )

    def critic_optimiser(self) -> optax.GradientTransformation:
        """Adam of a constant learning rate."""
        return optax.adam(self.critic_learning_rate)


def lower_q(params: Params, seen: Array, action: Array, config: TwinCriticConfig) -> Array:
    """`min_j Q_j`, `[...]`, at conditions `[..., C]` and actions `[..., A]`."""
    return jnp.min(config.critic().apply(params, seen, action), axis=0)
