"""Momentum whose memory fits the parameters of now (Fatkhullin et al. 2023, arXiv 2302.01734).

The mean of past gradients belongs to past parameters. N-PG-IGT takes the next gradient so far ahead that on a
quadratic the mean is of the present ones (implicit gradient transport: Arnold et al. 2019, arXiv 1906.03532;
normalised: Cutkosky and Mehta 2020, arXiv 2002.03305); HARPG moves the mean itself there, by a product with
the Hessian. Steps are of a given length, whatever that of the gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.types import Params


class Momentum(NamedTuple):
    """What the optimisers of this file remember."""

    count: Array  # [] int32, steps made
    direction: Params  # the estimate of the gradient
    moved: Params  # the last step of the parameters, theta_t - theta_{t - 1}


def decayed(first: float, power: float) -> optax.Schedule:
    """`first (2 / (t + 2))^power` at step `t`, from 0."""
    return lambda count: first * (2.0 / (jnp.asarray(count, jnp.float32) + 2.0)) ** power


def _scaled(factor: Array, tree: Params) -> Params:
    return jax.tree.map(lambda x: factor.astype(x.dtype) * x, tree)


def _sum(a: Params, b: Params) -> Params:
    return jax.tree.map(jnp.add, a, b)


def _begun(params: Params) -> Momentum:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Momentum(jnp.int32(0), zeros, jax.tree.map(jnp.zeros_like, params))


def _step(
    gradient: Params, state: Momentum, length: optax.Schedule, share: optax.Schedule, normalise: bool
) -> Momentum:
    fresh = jnp.asarray(share(state.count))
    direction = _sum(_scaled(1 - fresh, state.direction), _scaled(fresh, gradient))
    factor = -jnp.asarray(length(state.count))
    if normalise:
        norm = optax.tree.norm(direction)
        factor = jnp.where(norm > 0, factor / jnp.where(norm > 0, norm, 1.0), 0.0)
    return Momentum(state.count + 1, direction, _scaled(factor, direction))


def momentum(
    length: optax.Schedule, share: optax.Schedule, *, normalise: bool = True
) -> optax.GradientTransformation:
    """Steps along `d <- (1 - share) d + share g`; with `corrected` before each of them it is (N-)HARPG.

    Args:
        length: of each step; without `normalise` of one along a gradient of length 1.
        share: of the new gradient in the mean, 1 at the first step.
    """

    def update(gradient: Params, state: Momentum, params: Params | None = None) -> tuple[Params, Momentum]:
        del params
        state = _step(gradient, state, length, share, normalise)
        return state.moved, state

    return optax.GradientTransformation(_begun, update)  # type: ignore[arg-type]


def transported(length: optax.Schedule, share: optax.Schedule) -> optax.GradientTransformation:
    """N-PG-IGT (algorithm 1): the parameters that it is given, and moves, are those `ahead`.

    There gradients are taken, and samples drawn. `themselves` gives the ones that are learned; arguments as
    of `momentum`.
    """

    def update(gradient: Params, state: Momentum, params: Params | None = None) -> tuple[Params, Momentum]:
        del params
        following = _step(gradient, state, length, share, normalise=True)
        leap = _scaled(1 + _reach(following, share), following.moved)
        return _sum(leap, _scaled(-_reach(state, share), state.moved)), following

    return optax.GradientTransformation(_begun, update)  # type: ignore[arg-type]


def _reach(state: Momentum, share: optax.Schedule) -> Array:
    fresh = jnp.asarray(share(state.count))
    return (1 - fresh) / fresh


def ahead(params: Params, state: Momentum, share: optax.Schedule) -> Params:
    """`theta_t + (1 - share) / share (theta_t - theta_{t - 1})`, where the next gradient is to be taken."""
    return _sum(params, _scaled(_reach(state, share), state.moved))


def themselves(params: Params, state: Momentum, share: optax.Schedule) -> Params:
    """The inverse of `ahead`: what is learned, of the parameters that `transported` moves."""
    return _sum(params, _scaled(-_reach(state, share), state.moved))


def corrected(state: Momentum, change: Params) -> Momentum:
    """HARPG (algorithm 2): the memory of past gradients, moved by the `change` of the gradient since.

    Of `hessian_vector` at a point drawn uniformly between the last parameters and these, along
    `state.moved`: its mean is the change of the gradient, exactly.
    """
    return state._replace(direction=_sum(state.direction, change))


def hessian_vector(
    gradient: Callable[[Params, Array], Params],
    log_prob: Callable[[Params], Array],
    params: Params,
    direction: Params,
) -> Params:
    """An estimate without bias of `hessian(J)(params) direction`, from B trajectories drawn by `params`.

    `J`'s gradient is the mean of `gradient` over trajectories; a move of the parameters changes it, and also
    how probable each trajectory is (section 5 of the paper: `grad Phi <grad log p, v> + hessian(Phi) v`).

    Args:
        gradient: `(params, weight [B])`, the policy gradient, in which trajectory `b` counts `weight[b]`
            times; all in it that depends on the parameters must be computed from these.
        log_prob: `[B]`, log densities of the trajectories.
    """
    drawn = jax.lax.stop_gradient(log_prob(params))

    def weighted(at: Params) -> Params:
        return gradient(at, jnp.exp(log_prob(at) - drawn))

    return jax.jvp(weighted, (params,), (direction,))[1]
