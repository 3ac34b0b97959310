"""Actors of actor-critic algorithms: deterministic and Gaussian, their regression, and how they act."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jdp.data.draws import TransitionDraw
from jdp.types import (
    Bound,
    Decision,
    Imagination,
    Learner,
    Method,
    Metrics,
    Network,
    Normal,
    Params,
    Policy,
    PyTree,
    Spec,
    TanhNormal,
    Target,
    Transition,
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


def squashed(
    params: Params, observation: Array, *, actor: Network, log_std_range: tuple[float, float]
) -> TanhNormal:
    """`[...]`, at observations `[..., O]`, of an actor of outputs `[..., 2 A]`; the log std is clipped."""
    location, log_std = jnp.split(actor.apply(params, observation), 2, axis=-1)
    return TanhNormal(location, jnp.exp(jnp.clip(log_std, *log_std_range)))


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


def remembers_nothing(observation: Array) -> tuple[()]:
    """The carry of a policy that knows no past."""
    del observation
    return ()


def decided_anew(action: Array, value: Array | None = None) -> Decision:
    """The decision for actions `[B, A]` of a policy that decides at every step."""
    return Decision(action, jnp.ones(action.shape[0], bool), value=value)


def _mean(
    key: Array, state: PyTree, carry: Any, observation: Array, goal: Array, *, target: Target
) -> tuple[Any, Decision]:
    del key, goal
    return carry, decided_anew(target(state, observation).mean)


def _drawn(
    key: Array, state: PyTree, carry: Any, observation: Array, goal: Array, *, target: Target
) -> tuple[Any, Decision]:
    del goal
    return carry, decided_anew(jnp.clip(target(state, observation).sample(key), -1, 1))


def mean_policy(target: Target) -> Policy:
    """The mean action of `target`: how agents are evaluated."""
    return Policy(remembers_nothing, Bound(_mean, (("target", target),)))


def drawn_policy(target: Target) -> Policy:
    """A draw from `target`, clipped to the box: how agents explore."""
    return Policy(remembers_nothing, Bound(_drawn, (("target", target),)))


def actor_method(
    init: Callable[..., PyTree],
    update: Callable[..., tuple[PyTree, Metrics]],
    target: Callable[..., Any],
    config: Any,
    spec: Spec,
    *,
    minibatches: int = 1,
    next_actions: bool = False,
    imagination: Imagination | None = None,
) -> Method:
    """A method of transitions made of three module-level functions, with `config` and `spec` bound to them.

    `minibatches` and `next_actions` say what an update draws (`jdp.data.draws.TransitionDraw`).
    """
    settings = (("config", config), ("spec", spec))
    draw = TransitionDraw(spec.observation_dim, spec.action_dim, minibatches, next_actions)
    learner = Learner(Bound(init, settings), Bound(update, settings), draw)
    at: Target = Bound(target, settings)
    return Method(learner, mean_policy(at), drawn_policy(at), at, imagination)
