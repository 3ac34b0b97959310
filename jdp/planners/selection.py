"""Which of a planner's own plans pass: as good, as smooth and as consistent as real segments."""

from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.episodes import Episodes
from jdp.data.segments import SegmentRows
from jdp.errors import UserError
from jdp.learning.fitting import falling_rates
from jdp.learning.scale import Scale, clip_action, position
from jdp.planners.parts import Parts
from jdp.planners.settings import SelfImprovementConfig
from jdp.types import AnyArray, Plan, PyTree, Segments, Spec


def fit(
    config: SelfImprovementConfig, episodes: Episodes, updates: int, given: Collection[str] = ()
) -> SelfImprovementConfig:
    """A `jdp.learning.fitting.Fit`: learning rates fall to 0 over the training and all rounds after it.

    Without room for the rounds nothing would be learned in them.
    """
    return falling_rates(config, episodes, config.steps(updates)[1], given)


class Measures(NamedTuple):
    """What segments are tested by; P entries of the observation count, those of the goal or all."""

    value: Array | None  # [B], the critic's, in units of discounted returns; none on tasks with goals
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
    entries = position(spec)
    step = jnp.max(jnp.abs(states[:, 1:] - states[:, :-1])[..., entries], axis=1)
    error = jnp.sqrt(jnp.mean(jnp.square(found - actions[:, :-1]), axis=(1, 2)))
    largest = jnp.max(jnp.abs(scale.action.inverse(found)), axis=(1, 2))
    missed = (
        jnp.abs(states[:, -1, entries] - scale.goal(goal, spec)) if goal.shape[1] else jnp.zeros_like(step)
    )
    return Measures(value, error, step, largest, missed)


def judge(
    key: Array, state: PyTree, critic: PyTree, observation: Array, action: Array, goal: Array, parts: Parts
) -> tuple[Measures, Array]:
    """Of segments `[B, L, ...]`, and the actions `[B, L - 1, A]` of the inverse model; goals are `[B, G]`.

    `state` holds `scale` and `inverse`; `critic` are the weights of the level's. The key is consumed.
    """
    scale, level, (batch, length, o) = state.scale, parts.level, observation.shape
    s, a, value = scale.observation(observation), scale.action(action), None
    assert parts.inverse is not None
    here, there = (x.reshape(-1, o) for x in (s[:, :-1], s[:, 1:]))
    found = parts.inverse.act(key, state.inverse, here, there, jnp.ones(here.shape[0], jnp.int32))
    found = found.reshape(batch, length - 1, -1)
    if level.critic is not None:
        x0, none = jnp.concatenate([s, a], axis=-1), jnp.zeros((batch, 0))
        value = level.value_of(scale, level.critic.value(critic, none)(x0, jnp.zeros(batch)))
    return measures(value, s, a, found, goal, scale, parts.spec), scale.action.inverse(found)


def tested(
    keys: dict[str, Array],
    state: PyTree,
    critic: PyTree,
    made: Plan,
    goal: Array,
    parts: Parts,
    config: SelfImprovementConfig,
) -> tuple[Segments, Array]:
    """Plans with the actions of the inverse model, and which pass (`jdp.types.Imagine`).

    `state` holds real segments too, as `observation` and `action`; the keys "found" and "real" are
    consumed.
    """
    zeros = jnp.zeros(made.action.shape[:2])
    found, actual = judge(keys["found"], state, critic, made.observation, made.action, goal, parts)
    own, none = (state.observation, state.action), goal[:, :0]
    real, _ = judge(keys["real"], state, critic, *own, none, parts)
    action = jnp.concatenate([clip_action(actual), made.action[:, -1:]], axis=1)
    value = made.value if found.value is None else found.value
    value = jnp.broadcast_to(value[:, None], zeros.shape)
    distance = jnp.full(zeros.shape[0], zeros.shape[1] - 1, jnp.int32)
    segments = Segments(made.observation, action, zeros, zeros, value, goal, distance)
    return segments, select(found, real, config)


def reference(data: SegmentRows, count: int, rows: int) -> tuple[Array, Array]:
    """Observations and actions `[R, L, ...]` of real segments that begin evenly spaced in the dataset."""
    starts, last = jnp.asarray(data.starts), jnp.asarray(data.last)
    drawn = jnp.arange(count) * starts.shape[0] // count
    at = jnp.minimum(starts[drawn][:, None] + jnp.arange(rows)[None], last[drawn][:, None])
    return jnp.asarray(data.observation)[at], jnp.asarray(data.action)[at]


def select(found: Measures, real: Measures, config: SelfImprovementConfig) -> Array:
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


def kept(segments: Segments, keep: AnyArray, config: SelfImprovementConfig) -> Segments:
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
