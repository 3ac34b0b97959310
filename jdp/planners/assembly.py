"""What planners are put together from: settings that all have, rows of plans, and the method at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from jax import Array

from jdp.data.draws import SegmentDraw
from jdp.data.segments import Hindsight
from jdp.errors import UserError, check_choices, check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.inverse import Inverse, InverseConfig, begin_inverse, learn_near
from jdp.learning.plan_models import ModelConfig
from jdp.learning.scale import Scale, clip_action
from jdp.planners.following import FollowPlan, Planner, follow, played, pursued
from jdp.planners.levels import Learned, Lesson, Level, begin, learn
from jdp.planners.trajectory import SamplingConfig
from jdp.types import Bound, Learner, Method, Metrics, Plan, PyTree, Segments, Spec


@dataclass(frozen=True)
class ReturnsConfig:
    """The returns to go that critics learn."""

    discount: float = 0.997
    """Of a step."""
    terminal_penalty: float = -100.0
    """Added to the reward of a terminal step (Diffuser, arXiv 2205.09991, on locomotion)."""

    def __post_init__(self) -> None:
        check_settings("ReturnsConfig", discount=(self.discount, 0, 1))


def check_horizon(horizon: int, stride: int, replan_every: int) -> None:
    """Raises `UserError` unless rows of `stride` steps fill the horizon and a plan lasts until the next."""
    if stride < 1 or horizon % stride or horizon < 2 * stride:
        raise UserError(
            f"a horizon of {horizon} steps is not divisible into two or more rows of {stride}: choose a "
            f"multiple of the stride, for instance {max(2, round(horizon / max(stride, 1))) * max(stride, 1)}"
        )
    if not 1 <= replan_every <= horizon:
        raise UserError(f"replan_every is {replan_every}: a plan of {horizon} steps lasts 1 to {horizon}")


@dataclass(frozen=True)
class PlannerConfig:
    """What the settings of most planners share."""

    horizon: int = 32
    """Steps that a plan spans (a multiple of `stride`)."""
    stride: int = 1
    """Steps between two rows of a plan."""
    replan_every: int = 1
    """Steps that a plan is followed."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)

    def __post_init__(self) -> None:
        check_choices(self)
        check_horizon(self.horizon, self.stride, self.replan_every)


class Settings(Protocol):
    """What the settings of all planners have."""

    @property
    def replan_every(self) -> int: ...
    @property
    def returns(self) -> ReturnsConfig: ...


C = TypeVar("C", bound=Settings)
S = TypeVar("S")


def row_offsets(horizon: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`(offsets, at)`: the rows of a segment to learn from, and which of them are the rows of a plan.

    A segment begins with `stride + 1` consecutive steps, which the inverse model learns from
    (`jdp.learning.inverse.near_pair`); a plan has every `stride`-th step before `horizon`.
    """
    rows = range(0, horizon, stride)
    offsets = tuple(sorted({*range(stride + 1), *rows}))
    return offsets, tuple(offsets.index(step) for step in rows)


def plan_of(scale: Scale, x0: Array, value: Array, subgoal: Array | None = None) -> Plan:
    """Standardised rows `[B, T, O]` or `[B, T, O + A]` as a plan in the units of the task (`Scale.rows`).

    `value` is `[B]`; `subgoal` `[B, K, O]` is in the units of the task.
    """
    observation, action = scale.rows(x0)
    return Plan(observation, clip_action(action), value, observation[:, :0] if subgoal is None else subgoal)


@dataclass(frozen=True)
class Parts(Generic[C]):
    """What a planner's functions are bound to: all that is static."""

    config: C
    spec: Spec
    level: Level
    inverse: Inverse | None = None  # of plans that are tracked; None: planned actions are played
    stride: int = 1  # steps between two rows of a plan

    @property
    def offsets(self) -> tuple[int, ...]:
        """The rows of a segment to learn from."""
        return row_offsets(self.level.rows * self.stride, self.stride)[0]

    @property
    def at(self) -> tuple[int, ...]:
        """Which of them are the rows of a plan."""
        return row_offsets(self.level.rows * self.stride, self.stride)[1]

    def bound(self, function: Callable) -> Bound:
        """`function(..., parts=self)`; equal parts give equal functions."""
        return Bound(function, (("parts", self),))


def first_weights(
    parts: Parts, keys: dict[str, Array], condition: int = 0, judged_by: int = 0
) -> tuple[Averaged, PyTree, PyTree]:
    """Of denoiser, critic and inverse model (`Averaged`, or None); consumes the keys of these names.

    `condition` and `judged_by` are the widths of the conditions of denoiser and critic.
    """
    learned = begin(parts.level, keys["model"], keys.get("critic"), condition, judged_by)
    return learned.model, learned.critic, begin_inverse(keys["inverse"], parts.inverse, parts.spec)


def study(
    parts: Parts, keys: dict[str, Array], state: S, lesson: Lesson, batch: Segments
) -> tuple[S, Metrics]:
    """One update of what `state` holds as `model`, `critic` and `inverse`.

    Consumes the keys "model", "critic", "pair" and "inverse".
    """
    before: Any = state
    weights = Learned(before.model, getattr(state, "critic", None))
    learned, metrics = learn(parts.level, keys["model"], keys.get("critic"), weights, lesson)
    follows, more = learn_near(
        keys["pair"], keys["inverse"], parts.inverse, before.inverse, batch, before.scale, parts.stride
    )
    critic = {} if parts.level.critic is None else {"critic": learned.critic}
    return before._replace(model=learned.model, inverse=follows, **critic), {**metrics, **more}


def method(
    parts: Parts,
    init: Callable,
    update: Callable,
    plan: Callable,
    *,
    act: FollowPlan | None = None,
    offsets: tuple[int, ...] = (),
    hindsight: Hindsight = Hindsight(),  # noqa: B008 (an immutable tuple)
    lengths: tuple[int, int, int] | None = None,
) -> Method:
    """The planner of an `Init`, an `Update` and a `MakePlan`, which take `parts` by name besides.

    Args:
        act: by default planned states are tracked by `parts.inverse`, or planned actions played.
        offsets: of the segments to learn from, those of `parts` by default.
        hindsight: how goals are drawn.
        lengths: rows of a plan's observations, actions and subgoals, by default those of `parts.level`.
    """
    config, level, returns = parts.config, parts.level, parts.config.returns
    if act is None and parts.inverse is not None:
        act = Bound(pursued, (("inverse", parts.inverse), ("stride", parts.stride)))
    draw = SegmentDraw(
        offsets or parts.offsets, parts.spec.goal, hindsight, returns.discount, returns.terminal_penalty
    )
    planner = Planner(
        memory=(level.rows, level.channels),
        lengths=lengths or (level.rows, level.rows if level.extra else 0, 0),
        action_dim=parts.spec.action_dim,
        plan=parts.bound(plan),
        act=act or played,
        every=config.replan_every,
        guide=level.guide,
        chain=level.sampling.steps + 1 if level.trace else 0,
    )
    return Method(Learner(parts.bound(init), parts.bound(update), draw), follow(planner))
