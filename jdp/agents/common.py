"""What offline actor-critic algorithms share: networks, optimiser steps, targets, normalisation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data import checks
from jdp.errors import UserError
from jdp.networks.mlp import mlp
from jdp.networks.optimiser import step
from jdp.types import Bound, Metrics, Network, Normal, Params, PyTree, Spec, Transition


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


def standardised(batch: Transition, standardise: Standardiser) -> Transition:
    """`batch` with both its observations standardised."""
    return batch._replace(
        observation=standardise(batch.observation), next_observation=standardise(batch.next_observation)
    )


def deterministic(params: Params, actor: Network, observation: Array) -> Normal:
    """The action `tanh(MLP(s))` as a distribution of `std` zero; `observation` is standardised."""
    mean = jnp.tanh(actor.apply(params, observation))
    return Normal(mean, jnp.zeros_like(mean))


def gaussian_params(key: Array, actor: Network, spec: Spec) -> Params:
    """Parameters of `gaussian`: `{"mean": those of the MLP actor, "log_std": zeros [A]}`."""
    mean = actor.init(key, jnp.zeros(spec.observation_dim))
    return {"mean": mean, "log_std": jnp.zeros(spec.action_dim)}


def gaussian(
    params: Params, actor: Network, observation: Array, log_std_range: tuple[float, float]
) -> Normal:
    """A Gaussian of mean `tanh(MLP(s))`; its std knows no state, and its samples are not squashed."""
    mean = jnp.tanh(actor.apply(params["mean"], observation))
    std = jnp.exp(jnp.clip(params["log_std"], *log_std_range))
    return Normal(mean, jnp.broadcast_to(std, mean.shape))


def advantage_weighted_loss(
    params: Params,
    actor: Network,
    batch: Transition,
    advantage: Array,
    *,
    beta: float,
    weight_limit: float,
    log_std_range: tuple[float, float],
) -> tuple[Array, Metrics]:
    """`-min(exp(beta * advantage), limit) log pi(a | s)` of a `gaussian`; `advantage` is `[B]`."""
    weight = jnp.minimum(jnp.exp(beta * advantage), weight_limit)
    pi = gaussian(params, actor, batch.observation, log_std_range)
    loss = -jnp.mean(weight * pi.log_prob(batch.action))
    return loss, {
        "actor_loss": loss,
        "bc_loss": jnp.mean(jnp.square(pi.mean - batch.action)),
        "advantage_mean": jnp.mean(advantage),
        "weight_mean": jnp.mean(weight),
    }


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


def copied(params: Params) -> Params:
    """A target's first parameters: the fit loop donates the state, and no buffer can be donated twice."""
    return jax.tree.map(jnp.copy, params)


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
    checks.check_fits(transitions.observation, transitions.action, spec, "agent")


def check_settings(name: str, **settings: tuple[float, float, float]) -> None:
    """Raises `UserError` unless every setting, given as `(value, low, high)`, lies in `[low, high]`."""
    for setting, (value, low, high) in settings.items():
        if not low <= value <= high:
            raise UserError(f"{name}.{setting} is {value}; it must lie between {low} and {high}")
