"""Trajectory Diffuser (Huang et al. 2024, arXiv 2407.16142): a proposed plan, refined by diffusion."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp import planners
from jdp.data.segments import SegmentRows
from jdp.errors import check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.plan_critics import CriticConfig, critic
from jdp.learning.proposers import Proposer, ProposerConfig, proposer
from jdp.learning.scale import Scale, Span, fit_scale, fit_span
from jdp.planners import presets
from jdp.planners.trajectory import Previous, SamplingConfig
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, PyTree, Segments, Spec, named_keys

REFINING = SamplingConfig(sampler="dpmpp_2m", steps=14, sigma_max=13.4, warm_steps=5)  # from level .3


@dataclass(frozen=True)
class TrajectoryDiffuserConfig(planners.PlannerConfig):
    """Settings of Trajectory Diffuser."""

    candidates: int = 32
    """Refinements of the proposal, by their noise, on tasks with rewards; the critic's choice is followed."""
    target: float = 0.95
    """The return asked of the proposer: 0 is the least, 1 the greatest of the dataset. Unused on tasks with
    goals."""
    proposer: ProposerConfig = field(default_factory=ProposerConfig)
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(noisy=False))
    sampling: SamplingConfig = REFINING
    """`warm_steps` are the levels that a proposal is noised to and refined through: by default 5 calls from
    level .3; 0 draws from nothing, and no proposal counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("TrajectoryDiffuserConfig", target=(self.target, -10, 10))


class TrajectoryDiffuserState(NamedTuple):
    """What Trajectory Diffuser learned."""

    scale: Scale
    span: Span
    proposer: Averaged
    model: Averaged
    critic: PyTree  # Averaged; of tasks with rewards, else None
    inverse: PyTree  # Averaged; None where waypoints are followed


RefineParts = planners.Parts[TrajectoryDiffuserConfig]


def proposes(parts: RefineParts) -> Proposer:
    """Of rows `[B, T, O + 1]`, a state and its return to go; of tasks with goals `[B, T, O]`."""
    return proposer(parts.config.proposer, parts.level.channels + (0 if parts.spec.goal else 1))


def init(key: Array, data: SegmentRows, *, parts: RefineParts) -> TrajectoryDiffuserState:
    """The state before training."""
    keys, goals = named_keys(key, "model", "critic", "inverse", "proposer"), len(parts.spec.goal)
    row = jnp.zeros((1, parts.level.channels + (0 if goals else 1)))
    begun = proposes(parts).init(keys["proposer"], row, jnp.zeros((1, goals)))
    weights = planners.first_weights(parts, keys)
    return TrajectoryDiffuserState(fit_scale(data), fit_span(data), begun, *weights)


def told(state: TrajectoryDiffuserState, x0: Array, batch: Segments, parts: RefineParts) -> Array:
    """`[B, T, O + 1]`, standardised plans `x0` `[B, T, O]` with the return to go from each row beside it.

    On tasks with goals the plans alone.
    """
    if parts.spec.goal:
        return x0
    at = jnp.array(parts.offsets[1])
    return jnp.concatenate([x0, state.scale.value(batch.value[:, at][..., None])], axis=-1)


def update(
    key: Array, state: TrajectoryDiffuserState, batch: Segments, *, parts: RefineParts
) -> tuple[TrajectoryDiffuserState, Metrics]:
    """One step of the proposer, of the denoiser, of the critic, and of the inverse model."""
    x0, goal = planners.encode(parts, state.scale, batch), jnp.array(parts.spec.goal, jnp.int32)
    # A proposer is told where its plan ends, as the denoiser is: by the goal's entries of the last row.
    learned, own = proposes(parts).update(state.proposer, told(state, x0, batch, parts), x0[:, -1, goal])
    lesson = planners.Lesson(x0, parts.level.mask()[None], target=planners.outcome(state.scale, batch))
    keys = named_keys(key, "model", "critic", "pair", "inverse")
    state, metrics = planners.study(parts, keys, state._replace(proposer=learned), lesson, batch)
    return state, {**metrics, **own}


def proposal(state: TrajectoryDiffuserState, context: Context, parts: RefineParts) -> Array:
    """`[B, T, O]`, the standardised plan that the proposer makes of what is known and asked for."""
    scale, first = state.scale, state.scale.observation(context.observation)
    if not parts.spec.goal:
        wish = jnp.full((first.shape[0], 1), parts.config.target)
        first = jnp.concatenate([first, scale.value(state.span.inverse(wish))], axis=-1)
    aim = scale.goal(context.goal, parts.spec)
    rows = proposes(parts).propose(state.proposer, first, aim, parts.level.rows)
    return rows[..., : parts.level.channels]


def plan(
    key: Array, state: TrajectoryDiffuserState, memory: Previous, context: Context, *, parts: RefineParts
) -> planners.Planned:
    """The most valued of the refinements of one proposal, which stands in the place of a last plan."""
    del memory
    level, learned = parts.level, planners.Learned(state.model, state.critic)
    own = planners.denoiser_and_value(level, learned, context.observation.shape[0])
    begun = planners.planned(proposal(state, context, parts))
    drawn = planners.draw(key, level, own, level.given(context), begun, context)
    return planners.as_planned(state.scale, drawn, level.value_of(state.scale, drawn.score))


def _presets(task: Task) -> Mapping[str, Preset]:
    common = {"critic": presets.CLEAN_CRITIC, "sampling": REFINING}
    if task.horizon is None:
        cpu = TrajectoryDiffuserConfig(horizon=32, stride=4, candidates=16, model=presets.SMALL, **common)
    else:
        own = presets.by_waypoints(task) if task.stays else {}
        maze = presets.in_maze(task, candidates=1, **{**own, **common})
        cpu = TrajectoryDiffuserConfig(**maze)
    paper = replace(
        presets.published(cpu),
        sampling=REFINING,
        candidates=32 if task.horizon is None else 1,
        proposer=ProposerConfig(features=256, layers=4),
    )
    return presets.presets_of(task, cpu, paper)


@register(
    "planner",
    "trajectory_diffuser",
    TrajectoryDiffuserConfig,
    _presets,
    title="Trajectory Diffuser",
    paper="arXiv 2407.16142",
    idea="a recurrent network proposes a plan for a return; diffusion refines it from a middle level",
    departures="a GRU in place of a causal transformer; the return is asked of the proposer alone: nothing "
    "steers the denoiser; proposals are noised to the level that refinement begins at, where the authors' "
    "code hands them over as they are; a critic judges whole plans, of which the best is followed; on tasks "
    "with goals both networks are told where the plan ends",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def trajectory_diffuser(
    config: TrajectoryDiffuserConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Proposes states and returns one after another, refines them, and follows the critic's choice.

    Refining is `draw_plan` with the proposal in the place of the last plan, so it takes any model of plans:
    denoisers of every formulation, and flow maps.
    """
    judge = None if spec.goal else critic(config.critic)
    parts = planners.parts_of(config, spec, guide, trace, critic=judge, candidates=config.candidates)
    return planners.method(parts, init, update, plan)
