"""Conditions that keep any function of the state at 0 or above (control barrier functions).

Of a system `dx/dt = f(x) + g(x) u` a function `h` stays at or above 0 where `dh/dt >= -eta h^zeta`, for any
`eta >= 0` and `zeta >= 1`: it may fall, but the nearer to 0 the slower. That is linear in the action (Gao,
Yang and Prorok 2023, arXiv 2303.04313, whose parameters these are). In simulators of a time step it holds up
to that step, and only while actions can be large enough. Of point masses that brake
`jdp.tasks.barriers.braking` has conditions that hold in their steps and within their bounds.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import Bound

Barrier = Callable[[Array], Array]  # h(x [X]) -> [], differentiable, and at least 0 where all is well
Drift = Callable[[Array], Array]  # f(x [X]) -> [X], 1/s


def power(h: Array, zeta: Array | float) -> Array:
    """`|h|^zeta` with the sign of `h`: below 0 the condition drives back."""
    size = jnp.abs(h)
    return jnp.sign(h) * jnp.where(size > 0, jnp.where(size > 0, size, 1.0) ** zeta, 0.0)


def condition(
    barrier: Barrier,
    drift: Drift,
    push: Callable[[Array], Array],
    state: Array,
    eta: Array | float = 1.0,
    zeta: Array | float = 1.0,
) -> tuple[Array, Array]:
    """`(row [A], bound [])` of the action's condition `row . u >= bound`: `dh/dx (f + g u) >= -eta h^zeta`.

    Args:
        push: `g(x) -> [X, A]`.
        state: `[X]`; batches by `vmap`.
        eta: 1/s for `zeta` 1; small ones are cautious.

    The row is 0 where the action moves `h` only in its second derivative, as a force moves a position: then
    give `raised(barrier, drift)` in the place of `barrier`.
    """
    value, slope = jax.value_and_grad(barrier)(state)
    return slope @ push(state), -eta * power(value, zeta) - slope @ drift(state)


def _raised(state: Array, *, barrier: Barrier, drift: Drift, eta: Any, zeta: Any) -> Array:
    value, rate = jax.jvp(barrier, (state,), (drift(state),))
    return rate + eta * power(value, zeta)


def raised(barrier: Barrier, drift: Drift, eta: Array | float = 1.0, zeta: Array | float = 1.0) -> Barrier:
    """`dh/dt + eta h^zeta`, whose derivative the action moves where it did not move that of `h` itself.

    While it is at or above 0, so is `h`: a high-order barrier (Xiao and Belta, CDC 2019). It
    must be so when the episode begins.
    """
    settings = (("barrier", barrier), ("drift", drift), ("eta", eta), ("zeta", zeta))
    return Bound(_raised, settings)
