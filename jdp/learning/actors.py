"""Actors of offline actor-critic algorithms: deterministic and Gaussian, and their weighted regression."""

import jax.numpy as jnp
from jax import Array

from jdp.types import Metrics, Network, Normal, Params, Spec, Transition


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
