"""What stands at a planner's end: what was drawn as a plan, and the method of its functions."""

from collections.abc import Callable

from jax import Array

from jdp.data.draws import SegmentDraw
from jdp.data.segments import Hindsight
from jdp.learning.scale import Scale, clip_action
from jdp.planners.drawing import Drawn
from jdp.planners.following import FollowPlan, Planned, Planner, follow, played, pursued
from jdp.planners.parts import Parts
from jdp.planners.trajectory import planned
from jdp.planners.waypoints import FOREVER, approached, check_waypoints
from jdp.types import Bound, Learner, Method, Plan


def plan_of(scale: Scale, x0: Array, value: Array, subgoal: Array | None = None) -> Plan:
    """Standardised rows `[B, T, O]` or `[B, T, O + A]` as a plan in the units of the task (`Scale.rows`).

    `value` is `[B]`; `subgoal` `[B, K, O]` is in the units of the task.
    """
    observation, action = scale.rows(x0)
    return Plan(observation, clip_action(action), value, observation[:, :0] if subgoal is None else subgoal)


def as_planned(scale: Scale, drawn: Drawn, value: Array, subgoal: Array | None = None) -> Planned:
    """What was drawn as a new plan, which is remembered."""
    return Planned(planned(drawn.x0), plan_of(scale, drawn.x0, value, subgoal), drawn.chain)


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
    if config.control == "waypoints":
        check_waypoints(parts.spec)
        act = Bound(approached, (("stride", parts.stride),))
    elif act is None and parts.inverse is not None:
        act = Bound(pursued, (("inverse", parts.inverse), ("rows", parts.ahead), ("stride", parts.stride)))
    draw = SegmentDraw(
        offsets or parts.offsets[0], parts.spec.goal, hindsight, returns.discount, returns.terminal_penalty
    )
    planner = Planner(
        memory=(level.rows, level.channels),
        lengths=lengths or (level.rows, level.rows if level.extra else 0, 0),
        action_dim=parts.spec.action_dim,
        plan=parts.bound(plan),
        act=act or played,
        every=config.replan_every or FOREVER,
        guide=level.guide,
        chain=level.sampling.steps + 1 if level.trace else 0,
    )
    return Method(Learner(parts.bound(init), parts.bound(update), draw), follow(planner))
