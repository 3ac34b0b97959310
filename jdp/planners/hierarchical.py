"""Hierarchical Diffuser (Chen et al. 2024, arXiv 2401.02644): denoise subgoals, then what lies between.

Two levels have two sets of settings: a somewhat longer file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

from jax import Array

from jdp.data.segments import SegmentRows
from jdp.errors import UserError, check_choices
from jdp.learning.averaged import Averaged
from jdp.learning.candidates import check_candidates
from jdp.learning.fitting import falling_rates
from jdp.learning.inverse import InverseConfig, begin_inverse, inverse, learn_near
from jdp.learning.plan_critics import CriticConfig, critic
from jdp.learning.plan_models import ModelConfig, model
from jdp.learning.scale import Scale, fit_scale
from jdp.networks import NetworkConfig
from jdp.planners import presets, subgoals
from jdp.planners.assembly import Parts, ReturnsConfig, check_horizon, method, plan_of
from jdp.planners.following import Planned, played, pursued
from jdp.planners.levels import Learned, Lesson, Level, Steering, begin, draw, learn
from jdp.planners.trajectory import Previous, SamplingConfig, planned
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Context, Guide, Method, Metrics, PyTree, Segments, Spec, named_keys


@dataclass(frozen=True)
class HierarchicalConfig:
    """Settings of Hierarchical Diffuser."""

    horizon: int = 32
    """Steps that the subgoals span (a multiple of `jump`)."""
    jump: int = 4
    """Steps between two subgoals; the low level fills them in."""
    replan_every: int = 1
    """Steps that a plan is followed."""
    refine: Literal["first", "all"] = "first"
    """Which segments between subgoals are filled in: the plan then spans `jump` or `horizon - jump` steps."""
    follow: Literal["actions", "states"] = "actions"
    """Whether the planned actions are played, or the planned states tracked by an inverse model."""
    lookahead: int = 8
    """Steps ahead of the planned state that "states" aims at: the next one leaves no time to catch up."""
    candidates: int = 64
    """High-level plans drawn at a decision on tasks with rewards; the one of the highest value is refined."""
    guidance: float = 0.1
    """Strength of the pull of the high level to high values, standardised over the dataset; 0: none."""
    low_candidates: int = 1
    """Draws of every segment on tasks with rewards; above 1 a second critic chooses (64 in the paper)."""
    low_guidance: float = 0.0
    """As `guidance`, of the low level, by a second critic of the return to go from a segment's beginning."""
    guidance_point: Literal["denoised", "noised"] = "denoised"
    """Where the values' gradients are taken (see `jdp.diffusion.guidance.value_guided`)."""
    guidance_steps: int = 0
    """Newton steps at each noise level; 0: one plain gradient step, cheap, and enough for a weak pull."""
    action_weight: float = 10.0
    """Weight of the first action in the loss of the low level."""
    high: ModelConfig = field(default_factory=ModelConfig)
    low: ModelConfig = field(default_factory=ModelConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(warm_steps=0))
    """From nothing, as in `DiffuserPlannerConfig`: warm starts do not go with a choice among candidates."""
    low_sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=5, warm_steps=0))
    """Segments are always drawn from nothing; their ends leave little open, so few steps do."""
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)

    def __post_init__(self) -> None:
        check_choices(self)
        check_horizon(self.horizon, self.jump, self.replan_every)
        check_candidates(self.candidates)
        steps = self.jump * self.segments
        if self.replan_every > steps:
            raise UserError(
                f"replan_every is {self.replan_every}, but only {steps} steps are planned in detail: choose "
                f"replan_every <= {steps}{', or refine all' if self.refine == 'first' else ''}"
            )
        if self.follow == "states" and not 1 <= self.lookahead < self.horizon:
            raise UserError(f"lookahead is {self.lookahead}: choose 1 to {self.horizon - 1}")
        if self.low_sampling.warm_steps:
            raise UserError("segments are drawn from nothing: set warm_steps of low_sampling to 0")

    @property
    def segments(self) -> int:
        """How many segments between subgoals are filled in."""
        return 1 if self.refine == "first" else self.horizon // self.jump - 1


class HierarchicalState(NamedTuple):
    """What the two levels learned."""

    scale: Scale
    high: Averaged
    low: Averaged
    critic: PyTree  # Averaged; of tasks with rewards, else None
    low_critic: PyTree  # where `low_guidance` or `low_candidates` ask for it
    inverse: PyTree  # where states are tracked


@dataclass(frozen=True, kw_only=True)
class HierarchicalParts(Parts[HierarchicalConfig]):
    """`level` is the high one."""

    low: Level  # between two subgoals, all of whose entries are given


def init(key: Array, data: SegmentRows, *, parts: HierarchicalParts) -> HierarchicalState:
    """The state before training."""
    keys = named_keys(key, "high", "low", "critic", "low_critic", "inverse")
    high = begin(parts.level, keys["high"], keys["critic"])
    low = begin(parts.low, keys["low"], keys["low_critic"])
    control = begin_inverse(keys["inverse"], parts.inverse, parts.spec)
    return HierarchicalState(fit_scale(data), high.model, low.model, high.critic, low.critic, control)


def update(
    key: Array, state: HierarchicalState, batch: Segments, *, parts: HierarchicalParts
) -> tuple[HierarchicalState, Metrics]:
    """One step of both levels and of the inverse model."""
    keys = named_keys(key, "high", "low", "critic", "low_critic", "begin", "pair", "inverse")
    config, scale, weights = parts.config, state.scale, Learned(state.high, state.critic)
    target = scale.value(batch.value[:, :1])[:, 0]
    x0 = subgoals.encode(parts.level, scale, batch, config.jump)
    lesson = Lesson(x0, parts.level.mask()[None], target=target)
    high, metrics = learn(parts.level, keys["high"], keys["critic"], weights, lesson)
    weights, weight = Learned(state.low, state.low_critic), config.action_weight
    lesson = subgoals.lesson_between(keys["begin"], parts.low, scale, batch, config.horizon, weight)
    low, more = learn(parts.low, keys["low"], keys["low_critic"], weights, lesson)
    metrics = {**metrics, **{f"low_{name}": x for name, x in more.items()}}
    follows, more = learn_near(
        keys["pair"], keys["inverse"], parts.inverse, state.inverse, batch, scale, config.lookahead
    )
    state = HierarchicalState(scale, high.model, low.model, high.critic, low.critic, follows)
    return state, {**metrics, **more}


def plan(
    key: Array, state: HierarchicalState, memory: Previous, context: Context, *, parts: HierarchicalParts
) -> Planned:
    """The most valued of the high-level candidates, refined."""
    keys, scale, level, config = named_keys(key, "high", "low"), state.scale, parts.level, parts.config
    previous = subgoals.later(level, memory, config.replan_every, config.jump)
    learned, low = Learned(state.high, state.critic), Learned(state.low, state.low_critic)
    x0, score, chain = draw(keys["high"], level, learned, level.given(context), previous, context)
    states = x0[..., : parts.spec.observation_dim]
    between = subgoals.refine(keys["low"], parts.low, low, states, config.segments, context)
    dense, value = subgoals.joined(between), level.value_of(scale, score)
    return Planned(planned(x0), plan_of(scale, dense, value, scale.observation.inverse(states)), chain)


def _presets(task: Task) -> Mapping[str, Preset]:
    if task.horizon is None:
        small = {"high": presets.SMALL, "low": presets.SMALL, "critic": presets.CRITIC}
        cpu = HierarchicalConfig(candidates=16, sampling=presets.COLD, **small)
        return presets.presets_of(task, cpu, replace(presets.published(cpu), candidates=64))
    jump = presets.maze_rows(task)[1]
    cpu = HierarchicalConfig(
        horizon=task.horizon,
        jump=jump,
        replan_every=task.horizon - jump,
        refine="all",
        follow="states",
        high=presets.LARGER,
        low=replace(presets.SMALL, network=NetworkConfig("residual_unet", 32, 2)),
        sampling=presets.COLD,
    )
    return presets.presets_of(task, cpu)


def levels_of(
    config: HierarchicalConfig, spec: Spec, guide: Guide | None, trace: bool
) -> tuple[Level, Level]:
    """The high level, which is Diffuser's on rows `jump` steps apart, and the low one."""
    judge = None if spec.goal else critic(config.critic)
    high = Level(
        spec,
        rows=config.horizon // config.jump,
        extra=0 if spec.goal else config.jump * spec.action_dim,
        model=model(config.high),
        sampling=config.sampling,
        critic=judge,
        steering=Steering(config.guidance, config.guidance_point, config.guidance_steps),
        candidates=1 if judge is None else config.candidates,
        guide=guide,
        trace=trace,
    )
    low_judge = judge if config.low_guidance or config.low_candidates > 1 else None
    low = Level(
        replace(spec, goal=tuple(range(spec.observation_dim))),
        rows=config.jump + 1,
        extra=spec.action_dim,
        model=model(config.low),
        sampling=config.low_sampling,
        critic=low_judge,
        steering=Steering(config.low_guidance, config.guidance_point, config.guidance_steps),
        candidates=1 if low_judge is None else config.low_candidates,
        guide=guide,
    )
    return high, low


@register(
    "planner",
    "hierarchical",
    HierarchicalConfig,
    _presets,
    title="Hierarchical Diffuser",
    paper="arXiv 2401.02644",
    idea="denoises every K-th state, then all segments between them in one batch",
    departures="as `diffuser`; a low-level critic only on request",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def hierarchical(
    config: HierarchicalConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Denoises every K-th state given the present, then the steps between them given both ends.

    The high level is Diffuser on rows `jump` steps apart: on tasks with rewards each row also holds the
    actions up to the next ("dense actions"), a critic steers, and the best of the candidates is refined;
    on tasks with goals rows hold states, and the goal's entries of the last row are given. The low level
    fills in segments of `jump + 1` rows `[observation, action]`, all of a decision in one batch, each with a
    key of its own. Consecutive segments share an end, so the joined plan, of stride 1, has no gap;
    `Plan.subgoal` holds the high-level states, the present first.

    Args:
        guide: acts on both levels: on subgoals `jump` steps apart, and on the rows of every segment.
        trace: whether decisions hold the chain out of noise, that of the high level.
    """
    high, low = levels_of(config, spec, guide, trace)
    control, act = None, played
    if config.follow == "states":
        control = inverse(config.inverse, spec.action_dim, config.lookahead, spec.goal)
        act = Bound(pursued, (("inverse", control), ("rows", config.lookahead), ("stride", 1)))
    parts = HierarchicalParts(config, spec, high, control, low=low)
    length = config.segments * config.jump + 1
    return method(
        parts,
        init,
        update,
        plan,
        act=act,
        offsets=tuple(range(config.horizon)),
        lengths=(length, length, high.rows),
    )
