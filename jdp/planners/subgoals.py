"""Plans in two levels: subgoals every `jump` steps, and segments between them that share their ends."""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.learning.scale import Scale
from jdp.planners.drawing import denoiser_and_value, draw
from jdp.planners.levels import Learned, Lesson, Level, learn
from jdp.planners.trajectory import Previous, nothing, shifted
from jdp.types import Context, Metrics, Segments


def encode(level: Level, scale: Scale, batch: Segments, jump: int) -> Array:
    """`[B, T, O + E]`: every `jump`-th state, and where the level has them the actions up to the next."""
    x = scale.observation(batch.observation[:, ::jump])
    if not level.extra:
        return x
    dense = scale.action(batch.action).reshape(x.shape[0], level.rows, level.extra)
    return jnp.concatenate([x, dense], axis=-1)


def later(level: Level, memory: Previous, steps: int, jump: int) -> Previous:
    """A high-level plan as seen `steps` later; its actions are one sequence of steps."""
    x, o = memory.plan, level.spec.observation_dim
    subgoals = shifted(x[..., :o], steps / jump)
    if not level.extra:
        return Previous(subgoals, memory.planned)
    dense = x[..., o:].reshape(x.shape[0], level.rows * jump, level.extra // jump)
    dense = shifted(dense, steps).reshape(x.shape[0], level.rows, level.extra)
    return Previous(jnp.concatenate([subgoals, dense], axis=-1), memory.planned)


def lesson_between(
    key: Array, low: Level, scale: Scale, batch: Segments, horizon: int, action_weight: float
) -> Lesson:
    """Segments that begin anywhere in the drawn ones of `horizon` rows, so ends of episodes are seen as well.

    The first action's loss is multiplied by `action_weight`, and the critic learns the return to go from the
    beginning. The key is consumed.
    """
    begins = jax.random.randint(key, batch.reward.shape[:1], 0, horizon - low.rows + 1)
    at = (begins[:, None] + jnp.arange(low.rows)[None])[:, :, None]
    observation = jnp.take_along_axis(batch.observation, at, axis=1)
    action = jnp.take_along_axis(batch.action, at, axis=1)
    x0 = jnp.concatenate([scale.observation(observation), scale.action(action)], axis=-1)
    target = scale.value(jnp.take_along_axis(batch.value, begins[:, None], axis=1))[:, 0]
    return Lesson(x0, low.mask()[None], low.first_action(action_weight), target=target)


def learn_between(
    keys: dict[str, Array],
    low: Level,
    learned: Learned,
    scale: Scale,
    batch: Segments,
    horizon: int,
    action_weight: float,
) -> tuple[Learned, Metrics]:
    """One update of the low level; consumes the keys "begin", "low" and "low_critic"."""
    lesson = lesson_between(keys["begin"], low, scale, batch, horizon, action_weight)
    learned, metrics = learn(low, keys["low"], keys["low_critic"], learned, lesson)
    return learned, {f"low_{name}": x for name, x in metrics.items()}


def refine(
    key: Array, low: Level, learned: Learned, subgoals: Array, segments: int, context: Context
) -> Array:
    """`[S, B, K + 1, O + A]`, the first S segments between `subgoals` `[B, T, O]`, as one batch."""

    def one(key: Array, here: Array, there: Array) -> Array:
        known, own = low.known(here, there), denoiser_and_value(low, learned, here.shape[0])
        return draw(key, low, own, known, nothing(known[0]), context).x0

    ends = jnp.moveaxis(subgoals[:, : segments + 1], 1, 0)
    return jax.vmap(one)(jax.random.split(key, segments), ends[:-1], ends[1:])


def joined(segments: Array) -> Array:
    """`[S, B, K + 1, D]`, segments that share their ends, as one plan `[B, S K + 1, D]`."""
    s, batch, length, channels = segments.shape
    rows = jnp.moveaxis(segments[:, :, :-1], 0, 1).reshape(batch, s * (length - 1), channels)
    return jnp.concatenate([rows, segments[-1, :, -1:]], axis=1)
