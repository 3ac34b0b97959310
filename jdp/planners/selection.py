"""Which of a planner's own plans pass: as good, as smooth and as consistent as real segments."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.errors import UserError
from jdp.learning.scale import Scale
from jdp.types import AnyArray, Segments, Spec


class Bars(Protocol):
    """The settings of the test (`jdp.planners.adapt_diffuser.AdaptDiffuserConfig`)."""

    @property
    def value_quantile(self) -> float: ...
    @property
    def error_quantile(self) -> float: ...
    @property
    def quantile(self) -> float: ...
    @property
    def slack(self) -> float: ...


class Measures(NamedTuple):
    """What segments are tested by; P entries of the observation count, those of the goal or all."""

    value: (
        Array | None
    )  # [B], the critic's estimate, in units of discounted returns; none on tasks with goals
    error: Array  # [B], root mean square of action minus inverse model, standardised
    step: Array  # [B, P], longest step in each entry, standardised
    action: Array  # [B], largest absolute action of the inverse model, in units of the task
    miss: Array  # [B, P], distance of the last row to the goal, likewise; 0 without goals


def measures(
    value: Array | None, states: Array, actions: Array, found: Array, goal: Array, scale: Scale, spec: Spec
) -> Measures:
    """Of standardised segments `[B, L, ...]` of the critic's `value` `[B]`, for goals `[B, G]`.

    `found` `[B, L - 1, A]` are the actions of an inverse model between their states. Without goals (G = 0)
    nothing is missed.
    """
    entries = jnp.array(spec.goal or range(states.shape[-1]), jnp.int32)
    step = jnp.max(jnp.abs(states[:, 1:] - states[:, :-1])[..., entries], axis=1)
    error = jnp.sqrt(jnp.mean(jnp.square(found - actions[:, :-1]), axis=(1, 2)))
    largest = jnp.max(jnp.abs(scale.action.inverse(found)), axis=(1, 2))
    missed = (
        jnp.abs(states[:, -1, entries] - scale.goal(goal, spec)) if goal.shape[1] else jnp.zeros_like(step)
    )
    return Measures(value, error, step, largest, missed)


def select(found: Measures, real: Measures, config: Bars) -> Array:
    """`[B]` bool, which plans pass: bars are quantiles of the same measures of real segments `[R]`.

    So the bar of the value is in the critic's own units (discounted and as cautious as its regression), and
    moves with it; the paper's are undiscounted returns, which no discounted value attains. The error is
    compared among the plans: give many at once.
    """
    step = config.slack * jnp.quantile(real.step, config.quantile, axis=0)[None]
    action = config.slack * jnp.maximum(jnp.quantile(real.action, config.quantile), 1.0)
    keep = found.error <= jnp.quantile(found.error, config.error_quantile)
    keep &= jnp.all((found.step <= step) & (found.miss <= step), axis=1) & (found.action <= action)
    if found.value is not None and real.value is not None:
        keep &= found.value >= jnp.quantile(real.value, config.value_quantile)
    return keep


def kept(segments: Segments, keep: AnyArray, config: Bars) -> Segments:
    """The segments that passed, on the host: `[K, L, ...]`, for `jdp.data.rows_of`.

    Raises:
        UserError: if none did.
    """
    chosen = np.flatnonzero(np.asarray(keep))
    if not len(chosen):
        best = float(np.asarray(segments.value[:, 0]).max())
        raise UserError(
            f"AdaptDiffuser kept none of {len(keep)} plans (highest value {best:.4g}): train longer, lower "
            f"value_quantile ({config.value_quantile:g}) or raise slack ({config.slack:g})"
        )
    return jax.tree.map(lambda x: np.asarray(x)[chosen], segments)
