"""AdaptDiffuser (Liang et al. 2023, arXiv 2302.01877): learn from one's own plans that pass a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp import planners
from jdp.data.segments import SegmentRows
from jdp.errors import UserError, check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.guides import first_context
from jdp.learning.inverse import InverseConfig, begin_inverse, inverse
from jdp.learning.scale import Scale
from jdp.networks import NetworkConfig
from jdp.planners import diffuser, presets, selection
from jdp.planners.diffuser import DiffuserPlannerConfig, DiffuserPlannerState
from jdp.planners.following import played
from jdp.planners.trajectory import Previous, nothing
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, Segments, Spec, named_keys


@dataclass(frozen=True)
class AdaptDiffuserConfig(planners.SelfImprovementConfig):
    """Settings of AdaptDiffuser: those of Diffuser, of the test that plans must pass, and of the rounds."""

    diffuser: DiffuserPlannerConfig = field(default_factory=DiffuserPlannerConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    lookahead: int = 8
    """On tasks with goals planned states are tracked by the inverse model, so many steps ahead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.diffuser.stride != 1:
            raise UserError(
                f"AdaptDiffuser learns from whole plans: choose diffuser.stride 1, not {self.diffuser.stride}"
            )


class AdaptDiffuserState(NamedTuple):
    """What AdaptDiffuser learned, and the real segments that its plans are compared with."""

    planner: DiffuserPlannerState
    inverse: Averaged
    observation: Array  # [R, L, O]
    action: Array  # [R, L, A]

    @property
    def scale(self) -> Scale:
        """Diffuser's."""
        return self.planner.scale


@dataclass(frozen=True, kw_only=True)
class AdaptParts(planners.Parts[DiffuserPlannerConfig]):
    """`config` and `level` are Diffuser's; `inverse` judges plans, and tracks them in mazes."""

    settings: AdaptDiffuserConfig
    diffuser: diffuser.DiffuserParts


def init(key: Array, data: SegmentRows, *, parts: AdaptParts) -> AdaptDiffuserState:
    """The state before training."""
    keys = named_keys(key, "planner", "inverse")
    planner = diffuser.init(keys["planner"], data, parts=parts.diffuser)
    real = selection.reference(data, parts.settings.reference, parts.level.rows)
    return AdaptDiffuserState(planner, begin_inverse(keys["inverse"], parts.inverse, parts.spec), *real)


def update(
    key: Array, state: AdaptDiffuserState, batch: Segments, *, parts: AdaptParts
) -> tuple[AdaptDiffuserState, Metrics]:
    """One step of Diffuser and of the inverse model."""
    keys = named_keys(key, "planner", "pair", "inverse")
    planner, metrics = diffuser.update(keys["planner"], state.planner, batch, parts=parts.diffuser)
    learned, more = planners.learn_inverse(parts, keys, state, batch)
    return state._replace(planner=planner, inverse=learned), {**metrics, **more}


def plan(
    key: Array, state: AdaptDiffuserState, memory: Previous, context: Context, *, parts: AdaptParts
) -> planners.Planned:
    """Diffuser's plan."""
    return diffuser.plan(key, state.planner, memory, context, parts=parts.diffuser)


def imagine(
    key: Array, state: AdaptDiffuserState, observation: Array, goal: Array, *, parts: AdaptParts
) -> tuple[Segments, Array]:
    """Plans whose actions are those of the inverse model, and which pass (`jdp.types.Imagine`)."""
    keys, level, batch = named_keys(key, "plan", "found", "real"), parts.level, observation.shape[0]
    memory = nothing(jnp.zeros((batch, level.rows, level.channels)))
    context = first_context(state.scale, observation, goal, level.guide)
    made = plan(keys["plan"], state, memory, context, parts=parts).plan
    return selection.tested(keys, state, state.planner.critic, made, goal, parts, parts.settings)


def _presets(task: Task) -> Mapping[str, Preset]:
    inner, sizes, paper = diffuser.settings(task), {}, None
    if task.horizon is None:
        cpu = AdaptDiffuserConfig(inner, plans=1_000, rounds=1)
        paper = presets.published(cpu)
        paper = replace(paper, diffuser=replace(paper.diffuser, candidates=64))
    else:  # Plans have a row for every step: fewer of them make a batch.
        net = replace(presets.SMALL, network=NetworkConfig("residual_unet", 32, 4))
        cpu = AdaptDiffuserConfig(replace(inner, stride=1, model=net), plans=500, reference=128, rounds=1)
        sizes = {"updates": 1_000 if task.horizon < 256 else 2_000, "batch_size": 16}
    bars = {"value_quantile": 0.0, "error_quantile": 1.0, "quantile": 1.0}
    smoke = replace(presets.tiny(cpu), plans=16, reference=16, rounds=1, **bars)
    return presets.presets_of(task, cpu, paper, smoke=smoke, **sizes)


@register(
    "planner",
    "adapt_diffuser",
    AdaptDiffuserConfig,
    _presets,
    title="AdaptDiffuser",
    paper="arXiv 2302.01877",
    idea="Diffuser that learns from those of its own plans that pass a test",
    departures="tests are relative to real segments; the inverse model judges the plans' states, where the "
    "paper has a simulator",
    fit=selection.fit,
)
@lru_cache(maxsize=64)
def adapt_diffuser(
    config: AdaptDiffuserConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Diffuser, an inverse model of single steps, and `imagine`, which plans and tests the plans.

    `imagine(key, state, observation [B, O], goal [B, G]) -> (segments [B, horizon, ...], keep [B])`: plans
    whose actions are those of the inverse model between planned states (the last row keeps its own), and
    whether each passes `jdp.planners.selection.select`; on tasks with goals only those that arrive do. In the
    segments `value` is the critic's estimate in every row (0 with goals), of which Diffuser learns from the
    first; `reward` and `terminal` are unknown and 0; `distance` is that of the last row. `jdp.loops.improve`
    makes rounds of it: updates on batches mixed from data and kept segments.
    """
    inner, goals = diffuser.parts_of(config.diffuser, spec, guide, trace), bool(spec.goal)
    if goals:
        check_settings("AdaptDiffuserConfig", lookahead=(config.lookahead, 1, inner.level.rows - 1))
    ahead = config.lookahead if goals else 1
    control = inverse(config.inverse, spec.action_dim, ahead, spec.goal)
    own = {"ahead": ahead, "settings": config, "diffuser": inner}
    parts = AdaptParts(config.diffuser, spec, inner.level, control, **own)
    made = planners.method(parts, init, update, plan, act=None if goals else played)
    return made._replace(imagine=parts.bound(imagine))
