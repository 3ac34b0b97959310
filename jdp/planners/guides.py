"""A user's cost of plans as a guide."""

from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp
from jax import Array

from jdp.diffusion.guidance import value_guided
from jdp.learning.scale import Scale
from jdp.types import Bound, Context, Denoiser, Guide, bind


class Cost(Protocol):
    """What a plan costs, in the units of the task; differentiable."""

    def __call__(self, observation: Array, action: Array) -> Array:
        """`[B]`, of observations `[B, T, O]` and actions `[B, T, A]`.

        Actions are `[B, 0, A]` where plans hold states alone. On the high level of a hierarchy, whose rows
        are `jump` steps apart, they are those of all steps, `[B, T * jump, A]`.
        """
        ...


def cost_guide(cost: Cost, strength: float = 1.0, *, steps: int = 0) -> Guide:
    """The guide to plans of low `cost`: the prior tilted by `exp(-strength * cost)`.

    The gradient of the cost is taken at the denoised plan (`jdp.diffusion.guidance.value_guided`).

    Args:
        steps: of Newton's method at each noise level, for a cost that is curved where plans are; 0: one plain
            gradient step, cheap, and enough for a weak pull.
    """
    return Bound(_cost_guide, (("cost", cost), ("steps", steps), ("strength", strength)))


def _cost_guide(
    context: Context, *, cost: Cost, strength: float, steps: int
) -> Callable[[Denoiser], Denoiser]:
    value, solver = bind(_value, context.scale, cost=cost), min(steps, 1)
    return lambda denoiser: value_guided(denoiser, value, strength, steps=max(steps, 1), solver_steps=solver)


def _value(scale: Scale, x: Array, sigma: Array, *, cost: Cost) -> Array:
    del sigma  # the gradient is taken at clean plans
    batch, _, channels = x.shape
    dim, actions = scale.observation.mean.shape[0], scale.action.mean.shape[0]
    action = jnp.zeros((batch, 0, actions))
    if channels > dim:
        action = scale.action.inverse(x[..., dim:].reshape(batch, -1, actions))
    return -cost(scale.observation.inverse(x[..., :dim]), action)
