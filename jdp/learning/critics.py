"""Critics: ensembles of Q networks, their targets and losses."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

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
