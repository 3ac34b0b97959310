"""Diffusion Veteran (Lu et al. 2025, arXiv 2503.00535): the best of many unguided plans of states."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp import planners
from jdp.data.segments import FAR, Hindsight, SegmentRows
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_critics import CriticConfig, critic
from jdp.learning.scale import Scale, Span, fit_scale, fit_span
from jdp.planners import presets
from jdp.planners.trajectory import Previous, SamplingConfig
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, Segments, Spec, named_keys


@dataclass(frozen=True)
class VeteranConfig(planners.PlannerConfig):
    """Settings of Diffusion Veteran."""

    horizon: int = 4
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
    inverse: InverseConfig = field(default_factory=lambda: InverseConfig("diffusion", (256, 256, 256)))
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=20, warm_steps=0))

    @property
    def hindsight(self) -> Hindsight:
        """Later rows of the episode up to `reach` horizons ahead, a tenth anywhere, which count as far."""
        return Hindsight(later=0.9, anywhere=0.1, reach=max(1, round(self.reach * self.horizon)))


class VeteranState(NamedTuple):
    """What Diffusion Veteran learned."""

    scale: Scale
    span: Span
    model: Averaged
    critic: Averaged
    inverse: Averaged


VeteranParts = planners.Parts[VeteranConfig]


def shown(goal: Array, parts: VeteranParts) -> Array:
    """`[B, G]`, the goal where the denoiser is shown it, or `[B, 0]`."""
    return goal if parts.config.goals == "condition" else goal[:, :0]


def init(key: Array, data: SegmentRows, *, parts: VeteranParts) -> VeteranState:
    """The state before training."""
    keys, goal = named_keys(key, "model", "critic", "inverse"), jnp.zeros((1, len(parts.spec.goal)))
    weights = planners.first_weights(parts, keys, shown(goal, parts).shape[1], goal.shape[1])
    return VeteranState(fit_scale(data), fit_span(data), *weights)


def update(
    key: Array, state: VeteranState, batch: Segments, *, parts: VeteranParts
) -> tuple[VeteranState, Metrics]:
    """One step of the denoiser on weighted plans, of the critic, and of the inverse model."""
    goal, x0 = state.scale.goal(batch.goal, parts.spec), planners.encode(parts, state.scale, batch)
    weight, target = weights(state, batch, parts)[:, None, None], target_of(state, batch, parts)
    lesson = planners.Lesson(x0, parts.level.mask()[None], weight, shown(goal, parts), goal, target)
    return planners.study(parts, named_keys(key, "model", "critic", "pair", "inverse"), state, lesson, batch)


def weights(state: VeteranState, batch: Segments, parts: VeteranParts) -> Array:
    """`[B]`, how much the plans of a batch count for the denoiser."""
    if not parts.spec.goal:
        return jnp.exp(parts.config.weighting * 2 * (state.span(batch.value[:, 0]) - 1))
    # Where the denoiser is shown goals, plans say nothing of one of another episode.
    told = (batch.distance < FAR) | (parts.config.goals != "condition")
    return told.astype(batch.value.dtype)


def target_of(state: VeteranState, batch: Segments, parts: VeteranParts) -> Array:
    """`[B]`, what the critic learns: the standardised return, or minus the steps to the goal in horizons."""
    if not parts.spec.goal:
        return planners.outcome(state.scale, batch)
    steps = jnp.minimum(batch.distance, parts.config.hindsight.reach).astype(batch.value.dtype)
    return -steps / parts.config.horizon


def plan(
    key: Array, state: VeteranState, memory: Previous, context: Context, *, parts: VeteranParts
) -> planners.Planned:
    """The plan that the critic values most."""
    level, scale, wish = parts.level, state.scale, state.scale.goal(context.goal, parts.spec)
    learned = planners.Learned(state.model, state.critic)
    own = planners.denoiser_and_value(level, learned, wish.shape[0], shown(wish, parts), wish)
    drawn = planners.draw(key, level, own, level.given(context), parts.later(memory), context)
    value = parts.config.horizon * drawn.score if parts.spec.goal else level.value_of(scale, drawn.score)
    return planners.as_planned(scale, drawn, value)


def _presets(task: Task) -> Mapping[str, Preset]:
    common = {"critic": presets.CLEAN_CRITIC, "sampling": presets.COLD}
    if task.horizon is None:
        cpu = VeteranConfig(horizon=32, stride=4, candidates=16, model=presets.SMALL, **common)
        return presets.presets_of(task, cpu, presets.published(VeteranConfig(model=presets.SMALL, **common)))
    own = presets.by_waypoints(task) if task.stays else {}
    maze = presets.in_maze(task, goals="last_row", critic=presets.CLEAN_CRITIC, **own)
    return presets.presets_of(task, VeteranConfig(**maze))


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
    plan or beyond it (`reach`), so that plans which do not arrive are judged by where they end: the paper's
    reward of -1 a step in mazes, learned for all goals at once. `goals="critic"` is the paper's way too,
    where the goal is fixed. "last_row" prescribes the goal there, as in Diffuser: plans arrive at the very
    end. By default it is a condition of the denoiser, not exaggerated: candidates pass it sooner or later,
    and the critic takes the soonest.
    """
    judge, last, many = critic(config.critic), config.goals == "last_row", config.candidates
    parts = planners.parts_of(config, spec, guide, trace, goal_row=last, critic=judge, candidates=many)
    return planners.method(parts, init, update, plan, hindsight=config.hindsight)
