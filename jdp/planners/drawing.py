"""How the trajectories of a level are drawn: its denoiser, steered; candidates; the best of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.guidance import value_guided
from jdp.learning.candidates import choose, repeated
from jdp.learning.guides import guided
from jdp.planners.levels import Learned, Level, or_none
from jdp.planners.trajectory import Previous, draw_plan, plan_schedule
from jdp.types import Context, Denoiser


class Drawn(NamedTuple):
    """Plans in standardised coordinates."""

    x0: Array  # [B, T, O + E]
    score: Array  # [B], the critic's; 0 without one
    chain: Array | None  # [n + 1, B, T, O + E], how they came out of noise, where the level keeps it


def denoiser_and_value(
    level: Level,
    learned: Learned,
    rows: int,
    condition: Array | None = None,
    judged_by: Array | None = None,
) -> tuple[Denoiser, Partial | None]:
    """Of the candidates of `rows` plans, `B * candidates`; the value is None without a critic.

    `condition` `[B, C]` is the denoiser's and `judged_by` `[B, J]` the critic's; None: C = 0, J = 0.
    """
    seen, asked = (repeated(or_none(x, rows), level.candidates) for x in (condition, judged_by))
    denoiser = level.model.denoiser(learned.model, seen)
    return denoiser, None if level.critic is None else level.critic.value(learned.critic, asked)


def steered(level: Level, denoiser: Denoiser, value: Partial | None, context: Context) -> Denoiser:
    """`denoiser`, pulled to high values and then by the guide."""
    strength, point, steps = level.steering
    if value is not None and strength:
        denoiser = value_guided(
            denoiser, value, strength, point=point, steps=max(steps, 1), solver_steps=min(steps, 1)
        )
    return guided(denoiser, level.guide, context, level.candidates)


def draw_candidates(
    key: Array,
    level: Level,
    own: tuple[Denoiser, Partial | None],
    known: tuple[Array, Array],
    previous: Previous,
    context: Context,
    schedule: Array | None = None,
) -> tuple[Array, Array]:
    """`(x0 [B * candidates, T, D], score [B * candidates])`, steered by the value and by the guide.

    `own` are the denoiser and the value of all candidates (`denoiser_and_value`); `known` (`Level.known`),
    `previous` and `context` are of B plans. Without a value all have the score 0. Where the level keeps
    chains `x0` is one, of n + 1. `schedule` (None: the level's own) may have levels of single entries.
    """
    pulled, value = steered(level, *own, context), own[1]
    (entries, mask), previous = repeated((known, previous), level.candidates)
    schedule = plan_schedule(level.sampling, level.model.formulation) if schedule is None else schedule
    x0 = draw_plan(key, pulled, entries, mask, previous, level.sampling, schedule, level.trace)
    last = x0[-1] if level.trace else x0
    return x0, jnp.zeros(last.shape[0]) if value is None else value(last, jnp.zeros(last.shape[:1]))


def best(level: Level, x0: Array, score: Array) -> Drawn:
    """Of every `candidates` plans of `draw_candidates` the one of the highest `score` `[B * candidates]`."""
    if not level.trace:
        return Drawn(*choose(x0, score, level.candidates), None)
    chain = jax.vmap(lambda x: choose(x, score, level.candidates)[0])(x0)
    return Drawn(chain[-1], choose(x0[-1], score, level.candidates)[1], chain)


def draw(
    key: Array,
    level: Level,
    own: tuple[Denoiser, Partial | None],
    known: tuple[Array, Array],
    previous: Previous,
    context: Context,
    schedule: Array | None = None,
) -> Drawn:
    """The most valued of `draw_candidates`, whose arguments these are; without a value the first."""
    return best(level, *draw_candidates(key, level, own, known, previous, context, schedule))
