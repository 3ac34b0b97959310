"""Diffusion Veteran (Lu et al. 2025, arXiv 2503.00535): the best of many unguided plans of states.

Half of the file are settings, presets and the row of the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.segments import FAR, Hindsight, SegmentRows
from jdp.learning.averaged import Averaged
from jdp.learning.candidates import check_candidates
from jdp.learning.fitting import falling_rates
from jdp.learning.inverse import InverseConfig, inverse
from jdp.learning.plan_critics import CriticConfig, critic
from jdp.learning.plan_models import model
from jdp.learning.scale import Scale, Span, fit_scale, fit_span
from jdp.planners import presets
from jdp.planners.assembly import Parts, PlannerConfig, first_weights, method, plan_of, study
from jdp.planners.following import Planned
from jdp.planners.levels import Learned, Lesson, Level, draw
from jdp.planners.trajectory import Previous, SamplingConfig, later, planned
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, Segments, Spec, named_keys


@dataclass(frozen=True)
class VeteranConfig(PlannerConfig):
    """Settings of Diffusion Veteran."""

    horizon: int = 4
    """Steps that a plan spans (a multiple of `stride`)."""
    candidates: int = 50
    """Plans drawn at a decision; the one that the critic values most is followed."""
    goals: Literal["condition", "last_row", "critic"] = "condition"
    """Who knows the goal beside the critic: the denoiser as a condition, as the last row, or nobody."""
    weighting: float = 2.0
    """Plans weigh `exp(weighting (v - 1))` in the denoiser's loss, where v is the return within -1 .. 1; 0:
    all plans weigh the same, as they do on tasks with goals."""
    reach: float = 2.0
    """How far ahead hindsight goals lie at most, in horizons: beyond that the critic tells nothing apart."""
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(noisy=False))
    inverse: InverseConfig = field(
        default_factory=lambda: InverseConfig(kind="diffusion", hidden=(256, 256, 256))
    )
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=20, warm_steps=0))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_candidates(self.candidates)

    @property
    def hindsight(self) -> Hindsight:
        """Later rows of the episode up to `reach` horizons ahead, a tenth anywhere, which count as far."""
        return Hindsight(later=0.9, anywhere=0.1, reach=self.furthest)

    @property
    def furthest(self) -> int:
        """Steps to the furthest goal in hindsight."""
        return max(1, round(self.reach * self.horizon))


class VeteranState(NamedTuple):
    """What Diffusion Veteran learned."""

    scale: Scale
    span: Span
    model: Averaged
    critic: Averaged
    inverse: Averaged


VeteranParts = Parts[VeteranConfig]


def conditioned(parts: VeteranParts) -> bool:
    """Whether the denoiser is shown the goal."""
    return bool(parts.spec.goal) and parts.config.goals == "condition"


def init(key: Array, data: SegmentRows, *, parts: VeteranParts) -> VeteranState:
    """The state before training."""
    keys, goals = named_keys(key, "model", "critic", "inverse"), len(parts.spec.goal)
    learned = first_weights(parts, keys, goals if conditioned(parts) else 0, goals)
    return VeteranState(fit_scale(data), fit_span(data), *learned)


def update(
    key: Array, state: VeteranState, batch: Segments, *, parts: VeteranParts
) -> tuple[VeteranState, Metrics]:
    """One step of the denoiser on weighted plans, of the critic, and of the inverse model."""
    level, scale = parts.level, state.scale
    x0 = scale.observation(batch.observation[:, jnp.array(parts.at)])
    goal = scale.goal(batch.goal, parts.spec) if parts.spec.goal else batch.goal
    shown, weight = goal if conditioned(parts) else goal[:, :0], weights(state, batch, parts)[:, None, None]
    lesson = Lesson(x0, level.mask()[None], weight, shown, goal, outcome(state, batch, parts))
    return study(parts, named_keys(key, "model", "critic", "pair", "inverse"), state, lesson, batch)


def weights(state: VeteranState, batch: Segments, parts: VeteranParts) -> Array:
    """`[B]`, how much the plans of a batch count for the denoiser."""
    if conditioned(parts):  # plans say nothing of a goal of another episode
        return (batch.distance < FAR).astype(batch.value.dtype)
    if parts.spec.goal:
        return jnp.ones_like(batch.value[:, 0])
    return jnp.exp(parts.config.weighting * 2 * (state.span(batch.value[:, 0]) - 1))


def outcome(state: VeteranState, batch: Segments, parts: VeteranParts) -> Array:
    """`[B]`, what the critic learns: the standardised return, or minus the steps to the goal in horizons."""
    if not parts.spec.goal:
        return state.scale.value(batch.value[:, :1])[:, 0]
    steps = jnp.minimum(batch.distance, parts.config.furthest).astype(batch.value.dtype)
    return -steps / parts.config.horizon


def plan(
    key: Array, state: VeteranState, memory: Previous, context: Context, *, parts: VeteranParts
) -> Planned:
    """The plan that the critic values most."""
    level, config, goal = parts.level, parts.config, context.goal
    wish = state.scale.goal(goal, parts.spec) if parts.spec.goal else goal
    shown, learned = wish if conditioned(parts) else wish[:, :0], Learned(state.model, state.critic)
    previous = later(memory, config.replan_every / parts.stride)
    x0, score, chain = draw(key, level, learned, level.given(context), previous, context, shown, wish)
    value = config.horizon * score if parts.spec.goal else level.value_of(state.scale, score)
    return Planned(planned(x0), plan_of(state.scale, x0, value), chain)


def _presets(task: Task) -> Mapping[str, Preset]:
    common = {"critic": presets.CLEAN_CRITIC, "sampling": presets.COLD}
    if task.horizon is None:
        cpu = VeteranConfig(horizon=32, stride=4, candidates=16, model=presets.SMALL, **common)
        return presets.presets_of(task, cpu, presets.published(VeteranConfig(model=presets.SMALL, **common)))
    time = {"horizon": task.horizon, "replan_every": task.horizon, "stride": presets.maze_rows(task)[0]}
    return presets.presets_of(task, VeteranConfig(goals="last_row", model=presets.LARGER, **time, **common))


@register(
    "planner",
    "veteran",
    VeteranConfig,
    _presets,
    title="Diffusion Veteran",
    paper="arXiv 2503.00535",
    idea="draws many plans without guidance, follows the critic's choice; a diffusion inverse model acts",
    departures="EDM in place of a VP SDE, and a small critic, unless asked otherwise (`model.formulation`, "
    "`critic.network`); returns are standardised, which ranks plans as returns within -1 .. 1 do; the "
    "penalty of -100 is added to the reward of a terminal step, where the authors' code puts it in the "
    "reward's place; goals in hindsight as a condition, the paper's way on request",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def veteran(config: VeteranConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False) -> Method:
    """Draws many plans of states given the present, without guidance, and follows the critic's choice.

    The critic regresses what a clean plan comes to: on tasks with rewards the discounted return from its
    first row to the episode's end; on tasks with goals minus the steps to a goal in hindsight, within the
    plan or beyond it (`reach`), so that plans which do not arrive are judged by where they end. That is the
    paper's reward of -1 a step in mazes, learned for all goals at once. Drawing plans without knowing the
    goal (`goals="critic"`) is the paper's way too, where the goal is fixed; far goals in a large maze are
    then met by few of the candidates. "last_row" prescribes the goal's entries there, as in Diffuser:
    plans arrive at the very end. By default the denoiser has the hindsight goal as a condition, without
    exaggeration, and candidates pass the goal sooner or later; the critic takes the soonest.

    Args:
        guide: acts on the denoiser of plans, before the critic chooses.
        trace: whether decisions hold the chain out of noise.
    """
    level = Level(
        spec if config.goals == "last_row" else replace(spec, goal=()),
        rows=config.horizon // config.stride,
        extra=0,
        model=model(config.model),
        sampling=config.sampling,
        critic=critic(config.critic),
        candidates=config.candidates,
        guide=guide,
        trace=trace,
    )
    control = inverse(config.inverse, spec.action_dim, config.stride, spec.goal)
    parts = Parts(config, spec, level, control, config.stride)
    return method(parts, init, update, plan, hindsight=config.hindsight)
