"""Diffuser (Janner, Du, Tenenbaum and Levine 2022, arXiv 2205.09991): denoise plans, steer by a value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from jax import Array

from jdp import planners
from jdp.data.segments import SegmentRows
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.plan_critics import critic
from jdp.learning.scale import Scale, fit_scale
from jdp.planners import presets
from jdp.planners.trajectory import Previous
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, PyTree, Segments, Spec, named_keys


@dataclass(frozen=True)
class DiffuserPlannerConfig(planners.SteeredConfig, planners.PlannerConfig):
    """Settings of Diffuser."""

    stride: int = 1
    """Steps between two rows of a plan; above 1 (a departure, for long mazes) rows hold states only, and an
    inverse model finds the actions."""


class DiffuserPlannerState(NamedTuple):
    """What Diffuser learned."""

    scale: Scale
    model: Averaged
    critic: PyTree  # Averaged; of tasks with rewards, else None
    inverse: PyTree  # Averaged; of plans of states, else None


DiffuserParts = planners.Parts[DiffuserPlannerConfig]


def parts_of(
    config: DiffuserPlannerConfig, spec: Spec, guide: Guide | None = None, trace: bool = False
) -> DiffuserParts:
    """The denoiser, the critic of tasks with rewards, and the inverse model of plans of states."""
    return planners.parts_of(
        config,
        spec,
        guide,
        trace,
        extra=spec.action_dim if config.stride == 1 else 0,
        critic=None if spec.goal else critic(config.critic),
        steering=config.steering(),
        candidates=config.candidates,
    )


def init(key: Array, data: SegmentRows, *, parts: DiffuserParts) -> DiffuserPlannerState:
    """The state before training."""
    weights = planners.first_weights(parts, named_keys(key, "model", "critic", "inverse"))
    return DiffuserPlannerState(fit_scale(data), *weights)


def update(
    key: Array, state: DiffuserPlannerState, batch: Segments, *, parts: DiffuserParts
) -> tuple[DiffuserPlannerState, Metrics]:
    """One step of the denoiser, of the critic, and of the inverse model of plans of states."""
    level, x0 = parts.level, planners.encode(parts, state.scale, batch)
    weight, target = level.first_action(parts.config.action_weight), planners.outcome(state.scale, batch)
    lesson = planners.Lesson(x0, level.mask()[None], weight, target=target)
    return planners.study(parts, named_keys(key, "model", "critic", "pair", "inverse"), state, lesson, batch)


def plan(
    key: Array, state: DiffuserPlannerState, memory: Previous, context: Context, *, parts: DiffuserParts
) -> planners.Planned:
    """The most valued of the candidates; on tasks with goals their last row holds the goal."""
    level, weights = parts.level, planners.Learned(state.model, state.critic)
    own = planners.denoiser_and_value(level, weights, context.observation.shape[0])
    drawn = planners.draw(key, level, own, level.given(context), parts.later(memory), context)
    return planners.as_planned(state.scale, drawn, level.value_of(state.scale, drawn.score))


def settings(task: Task) -> DiffuserPlannerConfig:
    """Those of the cpu preset."""
    if task.horizon is None:
        small, judge = presets.SMALL, presets.CRITIC
        return DiffuserPlannerConfig(candidates=16, model=small, critic=judge, sampling=presets.COLD)
    own = presets.by_waypoints(task) if task.stays else {}
    return DiffuserPlannerConfig(**presets.in_maze(task, candidates=1, **own))


def _presets(task: Task) -> Mapping[str, Preset]:
    cpu, candidates = settings(task), 64 if task.horizon is None else 1
    return presets.presets_of(task, cpu, replace(presets.published(cpu), candidates=candidates))


@register(
    "planner",
    "diffuser",
    DiffuserPlannerConfig,
    _presets,
    title="Diffuser",
    paper="arXiv 2205.09991",
    idea="denoises states and actions; a value steers, or the goal stands in the last row",
    plans=parts_of,
    departures="values are standardised, so one strength of guidance serves all datasets; the gradient acts "
    "at the denoised plan, at the noised one on request; a goal prescribes its own entries alone, not a "
    "velocity of zero; in mazes the presets plan states some steps apart, in maze2d followed by the paper's "
    "controller",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def diffuser(
    config: DiffuserPlannerConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Denoises rows `[observation, action]` given the present, steered by a value, or to a goal in mazes.

    On tasks with rewards, a critic of noisy plans regresses the discounted return to go; its gradient
    steers every denoising step, and the candidate it values most is followed. On tasks with goals the goal's
    entries of the last row are given instead (inpainting), as in the paper's mazes. Conditions are exact:
    given entries are shown without noise in training and in sampling (`jdp.diffusion.guidance.hold`).
    A guide acts outside the pull to high values.
    """
    return planners.method(parts_of(config, spec, guide, trace), init, update, plan)
