"""What offline actor-critic algorithms share: networks, optimiser steps, targets, normalisation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.errors import UserError
from jdp.networks.mlp import mlp
from jdp.networks.optimiser import step
from jdp.types import Bound, Metrics, Network, Params, PyTree, Spec, Transition


class Learner(NamedTuple):
    """Trainable parameters and the state of their optimiser."""

    params: Params
    optimiser: PyTree


class Standardiser(NamedTuple):
    """Fixed statistics of the dataset's observations."""

    mean: Array  # [O]
    std: Array  # [O]

    def __call__(self, observation: Array) -> Array:
        """`[..., O]`, of mean 0 and standard deviation 1 over the dataset."""
        axes = tuple(range(observation.ndim - 1))
        return (observation - jnp.expand_dims(self.mean, axes)) / jnp.expand_dims(self.std, axes)


def standardiser(observations: Array, *, enabled: bool = True) -> Standardiser:
    """Statistics of `observations` `[..., O]`; the identity where not `enabled`.

    `1e-3` is added to the standard deviation, as in TD3+BC (arXiv 2106.06860, section 5).
    """
    dim = observations.shape[-1]
    if not enabled:
        return Standardiser(jnp.zeros(dim), jnp.ones(dim))
    rows = observations.reshape(-1, dim)
    return Standardiser(jnp.mean(rows, axis=0), jnp.std(rows, axis=0) + 1e-3)


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


def learner(params: Params, optimiser: optax.GradientTransformation) -> Learner:
    """`params` with the initial state of `optimiser`."""
    return Learner(params, optimiser.init(params))


def descend(
    loss: Callable[..., tuple[Array, Metrics]],
    optimiser: optax.GradientTransformation,
    learner: Learner,
    *args: Any,
) -> tuple[Learner, Metrics]:
    """One optimiser step in `params` on `loss(params, *args) -> (scalar, metrics)`."""
    gradient, metrics = jax.grad(loss, has_aux=True)(learner.params, *args)
    return Learner(*step(optimiser, gradient, learner.optimiser, learner.params)), metrics


def polyak(target: Params, online: Params, tau: float) -> Params:
    """`tau * online + (1 - tau) * target`: with a small `tau` the target moves slowly."""
    return jax.tree.map(lambda t, o: tau * o + (1 - tau) * t, target, online)


def td_target(reward: Array, terminal: Array, next_value: Array, discount: float) -> Array:
    """`r + discount * (1 - d) * V(s')`, all `[B]`; nothing is bootstrapped beyond a terminal."""
    return reward + discount * (1 - terminal) * next_value


def critic_loss(params: Params, critic: Network, batch: Transition, target: Array) -> tuple[Array, Metrics]:
    """Mean squared error to `target` `[B]`, summed over the critics of the ensemble `critic`."""
    q = critic.apply(params, batch.observation, batch.action)  # [N, B]
    loss = jnp.sum(jnp.mean(jnp.square(q - target[None]), axis=1))
    return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_mean": jnp.mean(target)}


def check_fits(transitions: Transition, spec: Spec) -> None:
    """Raises `UserError` where the transitions are not of the task in `spec`."""
    found = transitions.observation.shape[-1], transitions.action.shape[-1]
    expected = spec.observation_dim, spec.action_dim
    if found != expected:
        raise UserError(
            f"transitions have observations of {found[0]} and actions of {found[1]} numbers, but the "
            f"agent was made for {expected[0]} and {expected[1]}: make it with the spec of this dataset"
        )


def check_settings(name: str, **settings: tuple[float, float, float]) -> None:
    """Raises `UserError` unless every setting, given as `(value, low, high)`, lies in `[low, high]`."""
    for setting, (value, low, high) in settings.items():
        if not low <= value <= high:
            raise UserError(f"{name}.{setting} is {value}; it must lie between {low} and {high}")
