"""The parts of a planner: what is static in it, the rows that it learns from, a step of its networks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import jax.numpy as jnp
from jax import Array

from jdp.learning.averaged import Averaged
from jdp.learning.inverse import Inverse, begin_inverse, inverse, learn_near
from jdp.learning.plan_critics import Critic
from jdp.learning.plan_models import model
from jdp.learning.scale import Scale
from jdp.planners.levels import Learned, Lesson, Level, Steering, begin, learn
from jdp.planners.settings import FollowedConfig, PlannerConfig
from jdp.planners.trajectory import Previous, later
from jdp.types import Bound, Guide, Metrics, PyTree, Segments, Spec

C = TypeVar("C", bound=FollowedConfig)
P = TypeVar("P", bound=PlannerConfig)
S = TypeVar("S")


def row_offsets(horizon: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`(offsets, at)`: the rows of a segment to learn from, and which of them are the rows of a plan.

    A segment begins with `stride + 1` consecutive steps, which the inverse model learns from
    (`jdp.learning.inverse.near_pair`); a plan has every `stride`-th step before `horizon`.
    """
    rows = range(0, horizon, stride)
    offsets = tuple(sorted({*range(stride + 1), *rows}))
    return offsets, tuple(offsets.index(step) for step in rows)


@dataclass(frozen=True)
class Parts(Generic[C]):
    """What a planner's functions are bound to: all that is static."""

    config: C
    spec: Spec
    level: Level
    inverse: Inverse | None = None  # of plans that are tracked; None: planned actions are played
    stride: int = 1  # steps between two rows of a plan
    ahead: int = 1  # rows from the present to the one that is tracked

    @property
    def offsets(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """`row_offsets` of the level."""
        return row_offsets(self.level.rows * self.stride, self.stride)

    def later(self, memory: Previous) -> Previous:
        """The last plan as seen when the next one is made."""
        return later(memory, self.config.replan_every / self.stride)

    def bound(self, function: Callable) -> Bound:
        """`function(..., parts=self)`; equal parts give equal functions."""
        return Bound(function, (("parts", self),))


def parts_of(
    config: P,
    spec: Spec,
    guide: Guide | None = None,
    trace: bool = False,
    *,
    goal_row: bool = True,
    extra: int = 0,
    critic: Critic | None = None,
    steering: Steering = Steering(0.0),  # noqa: B008 (an immutable tuple)
    candidates: int = 1,
) -> Parts[P]:
    """A level of `horizon / stride` rows, and an inverse model where they hold states alone.

    Args:
        goal_row: whether the last row is given the goal's entries, on tasks that have one.
        extra: entries of a row beside the observation.
    """
    known = spec if goal_row else replace(spec, goal=())
    rows, net = config.horizon // config.stride, model(config.model)
    level = Level(known, rows, extra, net, config.sampling, critic, steering, candidates, guide, trace)
    learned = not extra and config.control == "model"
    control = inverse(config.inverse, spec.action_dim, config.stride, spec.goal) if learned else None
    return Parts(config, spec, level, control, config.stride)


def encode(parts: Parts, scale: Scale, batch: Segments) -> Array:
    """`[B, T, O + E]`, the rows of a plan, standardised; with actions where the level has them."""
    at = jnp.array(parts.offsets[1])
    x0 = scale.observation(batch.observation[:, at])
    return jnp.concatenate([x0, scale.action(batch.action[:, at])], axis=-1) if parts.level.extra else x0


def outcome(scale: Scale, batch: Segments) -> Array:
    """`[B]`, the standardised return to go from the first row."""
    return scale.value(batch.value[:, :1])[:, 0]


def first_weights(
    parts: Parts, keys: dict[str, Array], condition: int = 0, judged_by: int = 0
) -> tuple[Averaged, PyTree, PyTree]:
    """Of denoiser, critic and inverse model (`Averaged`, or None); consumes the keys of these names.

    `condition` and `judged_by` are the widths of the conditions of denoiser and critic.
    """
    learned = begin(parts.level, keys["model"], keys.get("critic"), condition, judged_by)
    return learned.model, learned.critic, begin_inverse(keys["inverse"], parts.inverse, parts.spec)


def learn_inverse(
    parts: Parts, keys: dict[str, Array], state: PyTree, batch: Segments
) -> tuple[PyTree, Metrics]:
    """One update of what `state` holds as `inverse`; consumes the keys "pair" and "inverse"."""
    pair, key, steps = keys["pair"], keys["inverse"], parts.stride * parts.ahead
    return learn_near(pair, key, parts.inverse, state.inverse, batch, state.scale, steps)


def study(
    parts: Parts, keys: dict[str, Array], state: S, lesson: Lesson, batch: Segments
) -> tuple[S, Metrics]:
    """One update of what `state` holds as `model`, `critic` and `inverse`.

    Consumes the keys "model", "critic", "pair" and "inverse".
    """
    before: Any = state
    weights = Learned(before.model, getattr(state, "critic", None))
    learned, metrics = learn(parts.level, keys["model"], keys.get("critic"), weights, lesson)
    follows, more = learn_inverse(parts, keys, state, batch)
    critic = {} if parts.level.critic is None else {"critic": learned.critic}
    return before._replace(model=learned.model, inverse=follows, **critic), {**metrics, **more}
