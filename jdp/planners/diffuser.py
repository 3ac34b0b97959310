"""Diffuser (Janner, Du, Tenenbaum and Levine 2022, arXiv 2205.09991): denoise plans, steer by a value.

AdaptDiffuser plans with the same functions, so they are public, and the file is somewhat long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.segments import SegmentRows
from jdp.learning.averaged import Averaged
from jdp.learning.candidates import check_candidates
from jdp.learning.fitting import falling_rates
from jdp.learning.inverse import inverse
from jdp.learning.plan_critics import CriticConfig, critic
from jdp.learning.plan_models import model
from jdp.learning.scale import Scale, fit_scale
from jdp.planners import presets
from jdp.planners.assembly import Parts, PlannerConfig, first_weights, method, plan_of, study
from jdp.planners.following import Planned
from jdp.planners.levels import Learned, Lesson, Level, Steering, draw
from jdp.planners.trajectory import Previous, SamplingConfig, later, planned
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, PyTree, Segments, Spec, named_keys


@dataclass(frozen=True)
class DiffuserPlannerConfig(PlannerConfig):
    """Settings of Diffuser."""

    stride: int = 1
    """Steps between two rows of a plan; above 1 (a departure, for long mazes) rows hold states only, and an
    inverse model finds the actions."""
    candidates: int = 64
    """Plans drawn at a decision; the one of the highest value is followed (1 in mazes, without a value)."""
    guidance: float = 0.1
    """Strength of the pull to high values, which are standardised over the dataset; 0: none. The entries of a
    plan move together, so that a pull on each counts many times: 1 drives hopper's plans off the data."""
    guidance_point: Literal["denoised", "noised"] = "denoised"
    """Where the value's gradient is taken (see `jdp.diffusion.guidance.value_guided`)."""
    guidance_steps: int = 0
    """Newton steps at each noise level; 0: one plain gradient step, cheap, and enough for a weak pull."""
    action_weight: float = 10.0
    """Weight of the first action in the loss."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(warm_steps=0))
    """Warm starts are for one candidate: choosing the most valued of several re-noised copies of the last
    choice, step after step, breeds plans that only the critic believes in (on hopper it falls at once)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_candidates(self.candidates)


class DiffuserPlannerState(NamedTuple):
    """What Diffuser learned."""

    scale: Scale
    model: Averaged
    critic: PyTree  # Averaged; of tasks with rewards, else None
    inverse: PyTree  # Averaged; of plans of states, else None


DiffuserParts = Parts[DiffuserPlannerConfig]


def parts_of(config: DiffuserPlannerConfig, spec: Spec, guide: Guide | None, trace: bool) -> DiffuserParts:
    """The denoiser, the critic of tasks with rewards, and the inverse model of plans of states."""
    level = Level(
        spec,
        rows=config.horizon // config.stride,
        extra=spec.action_dim if config.stride == 1 else 0,
        model=model(config.model),
        sampling=config.sampling,
        critic=None if spec.goal else critic(config.critic),
        steering=Steering(config.guidance, config.guidance_point, config.guidance_steps),
        candidates=config.candidates,
        guide=guide,
        trace=trace,
    )
    control = None if level.extra else inverse(config.inverse, spec.action_dim, config.stride, spec.goal)
    return Parts(config, spec, level, control, config.stride)


def init(key: Array, data: SegmentRows, *, parts: DiffuserParts) -> DiffuserPlannerState:
    """The state before training."""
    return DiffuserPlannerState(
        fit_scale(data), *first_weights(parts, named_keys(key, "model", "critic", "inverse"))
    )


def update(
    key: Array, state: DiffuserPlannerState, batch: Segments, *, parts: DiffuserParts
) -> tuple[DiffuserPlannerState, Metrics]:
    """One step of the denoiser, of the critic, and of the inverse model of plans of states."""
    level, scale, at = parts.level, state.scale, jnp.array(parts.at)
    x0 = scale.observation(batch.observation[:, at])
    if level.extra:
        x0 = jnp.concatenate([x0, scale.action(batch.action[:, at])], axis=-1)
    weight = jnp.ones((level.rows, level.channels))
    weight = weight.at[0, parts.spec.observation_dim :].set(parts.config.action_weight)
    target = scale.value(batch.value[:, :1])[:, 0]
    lesson = Lesson(x0, level.mask()[None], weight[None], target=target)
    return study(parts, named_keys(key, "model", "critic", "pair", "inverse"), state, lesson, batch)


def plan(
    key: Array, state: DiffuserPlannerState, memory: Previous, context: Context, *, parts: DiffuserParts
) -> Planned:
    """The most valued of the candidates; on tasks with goals their last row holds the goal."""
    level, previous = parts.level, later(memory, parts.config.replan_every / parts.stride)
    learned = Learned(state.model, state.critic)
    x0, score, chain = draw(key, level, learned, level.given(context), previous, context)
    return Planned(planned(x0), plan_of(state.scale, x0, level.value_of(state.scale, score)), chain)


def settings(task: Task) -> DiffuserPlannerConfig:
    """Those of the cpu preset."""
    if task.horizon is None:
        small, judge = presets.SMALL, presets.CRITIC
        return DiffuserPlannerConfig(candidates=16, model=small, critic=judge, sampling=presets.COLD)
    # Plans that end at the goal are followed to their end: drawn anew, they would take as long again.
    return DiffuserPlannerConfig(
        horizon=task.horizon,
        stride=presets.maze_rows(task)[0],
        replan_every=task.horizon,
        candidates=1,
        model=presets.LARGER,
        sampling=presets.COLD,
    )


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
    departures="values are standardised, so one strength of guidance serves all datasets; the gradient acts "
    "at the denoised plan, at the noised one on request; a goal prescribes its own entries alone, not a "
    "velocity of zero; in mazes the presets plan states some steps apart",
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

    Args:
        guide: acts on the denoiser of plans, outside the pull to high values.
        trace: whether decisions hold the chain out of noise.
    """
    return method(parts_of(config, spec, guide, trace), init, update, plan)
