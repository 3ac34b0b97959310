"""Hierarchical Diffuser (Chen et al. 2024, arXiv 2401.02644): denoise subgoals, then what lies between.

Two levels have two sets of settings and of weights: a longer file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

from jax import Array

from jdp import planners
from jdp.data.segments import SegmentRows
from jdp.errors import UserError, check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.inverse import begin_inverse, inverse
from jdp.learning.plan_critics import critic
from jdp.learning.plan_models import ModelConfig, model
from jdp.learning.scale import Scale, fit_scale
from jdp.networks import NetworkConfig
from jdp.planners import levels, presets, subgoals
from jdp.planners.settings import check_horizon
from jdp.planners.trajectory import Previous, SamplingConfig
from jdp.registry import Preset, Task, register
from jdp.types import Context, Guide, Method, Metrics, PyTree, Segments, Spec, named_keys


@dataclass(frozen=True)
class HierarchicalConfig(planners.SteeredConfig):
    """Settings of Hierarchical Diffuser, whose high level is steered."""

    jump: int = 4
    """Steps between two subgoals; the low level fills them in."""
    refine: Literal["first", "all"] = "first"
    """Which segments between subgoals are filled in: the plan then spans `jump` or `horizon - jump` steps."""
    follow: Literal["actions", "states"] = "actions"
    """Whether the planned actions are played, or the planned states tracked by an inverse model."""
    lookahead: int = 8
    """Steps ahead of the planned state that "states" aims at: the next one leaves no time to catch up."""
    low_candidates: int = 1
    """Draws of every segment on tasks with rewards; above 1 a second critic chooses (64 in the paper)."""
    low_guidance: float = 0.0
    """As `guidance`, of the low level, by a second critic of the return to go from a segment's beginning."""
    high: ModelConfig = field(default_factory=ModelConfig)
    low: ModelConfig = field(default_factory=ModelConfig)
    low_sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=5, warm_steps=0))
    """Segments are always drawn from nothing; their ends leave little open, so few steps do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_horizon(self.horizon, self.jump, self.replan_every)
        if self.replan_every > (steps := self.jump * self.segments):
            raise UserError(
                f"replan_every is {self.replan_every}, but only {steps} steps are planned in detail: choose "
                f"replan_every <= {steps}{', or refine all' if self.refine == 'first' else ''}"
            )
        if self.follow == "states":
            check_settings("HierarchicalConfig", lookahead=(self.lookahead, 1, self.horizon - 1))
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
class HierarchicalParts(planners.Parts[HierarchicalConfig]):
    """`level` is the high one."""

    low: planners.Level  # between two subgoals, all of whose entries are given


def levels_of(
    config: HierarchicalConfig, spec: Spec, guide: Guide | None, trace: bool
) -> tuple[planners.Level, planners.Level]:
    """The high level, which is Diffuser's on rows `jump` steps apart, and the low one."""
    rows, judge = config.horizon // config.jump, None if spec.goal else critic(config.critic)
    extra, many = (0, 1) if spec.goal else (config.jump * spec.action_dim, config.candidates)
    net, steering = model(config.high), config.steering()
    high = planners.Level(spec, rows, extra, net, config.sampling, judge, steering, many, guide, trace)
    if judge is None or not (config.low_guidance or config.low_candidates > 1):
        judge, many = None, 1
    else:
        many = config.low_candidates
    ends = replace(spec, goal=tuple(range(spec.observation_dim)))
    net, steering = model(config.low), config.steering(config.low_guidance)
    low = planners.Level(
        ends, config.jump + 1, spec.action_dim, net, config.low_sampling, judge, steering, many, guide
    )
    return high, low


def init(key: Array, data: SegmentRows, *, parts: HierarchicalParts) -> HierarchicalState:
    """The state before training."""
    keys = named_keys(key, "high", "low", "critic", "low_critic", "inverse")
    high = levels.begin(parts.level, keys["high"], keys["critic"])
    low = levels.begin(parts.low, keys["low"], keys["low_critic"])
    control = begin_inverse(keys["inverse"], parts.inverse, parts.spec)
    return HierarchicalState(fit_scale(data), high.model, low.model, high.critic, low.critic, control)


def update(
    key: Array, state: HierarchicalState, batch: Segments, *, parts: HierarchicalParts
) -> tuple[HierarchicalState, Metrics]:
    """One step of both levels and of the inverse model."""
    keys = named_keys(key, "high", "low", "critic", "low_critic", "begin", "pair", "inverse")
    config, scale, level = parts.config, state.scale, parts.level
    x0 = subgoals.encode(level, scale, batch, config.jump)
    lesson = planners.Lesson(x0, level.mask()[None], target=planners.outcome(scale, batch))
    above, below = planners.Learned(state.high, state.critic), planners.Learned(state.low, state.low_critic)
    high, metrics = levels.learn(level, keys["high"], keys["critic"], above, lesson)
    low, more = subgoals.learn_between(
        keys, parts.low, below, scale, batch, config.horizon, config.action_weight
    )
    follows, last = planners.learn_inverse(parts, keys, state, batch)
    state = HierarchicalState(scale, high.model, low.model, high.critic, low.critic, follows)
    return state, {**metrics, **more, **last}


def plan(
    key: Array, state: HierarchicalState, memory: Previous, context: Context, *, parts: HierarchicalParts
) -> planners.Planned:
    """The most valued of the high-level candidates, refined."""
    keys, scale, level, config = named_keys(key, "high", "low"), state.scale, parts.level, parts.config
    previous = subgoals.later(level, memory, config.replan_every, config.jump)
    above, below = planners.Learned(state.high, state.critic), planners.Learned(state.low, state.low_critic)
    own = planners.denoiser_and_value(level, above, context.observation.shape[0])
    drawn = planners.draw(keys["high"], level, own, level.given(context), previous, context)
    states = drawn.x0[..., : parts.spec.observation_dim]
    between = subgoals.refine(keys["low"], parts.low, below, states, config.segments, context)
    dense, value = subgoals.joined(between), level.value_of(scale, drawn.score)
    made = planners.plan_of(scale, dense, value, scale.observation.inverse(states))
    return planners.Planned(planners.planned(drawn.x0), made, drawn.chain)


def _presets(task: Task) -> Mapping[str, Preset]:
    if task.horizon is None:
        small = {"high": presets.SMALL, "low": presets.SMALL, "critic": presets.CRITIC}
        cpu = HierarchicalConfig(candidates=16, sampling=presets.COLD, **small)
        return presets.presets_of(task, cpu, replace(presets.published(cpu), candidates=64))
    jump, net = presets.maze_rows(task)[1], NetworkConfig("residual_unet", 32, 2)
    nets = {"high": presets.LARGER, "low": replace(presets.SMALL, network=net)}
    every, control = (0, "waypoints") if task.stays else (task.horizon - jump, "model")
    time = {"horizon": task.horizon, "jump": jump, "replan_every": every}
    way = {"refine": "all", "follow": "states", "control": control, "sampling": presets.COLD}
    return presets.presets_of(task, HierarchicalConfig(**time, **nets, **way))


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
    `Plan.subgoal` holds the high-level states, the present first. A guide acts on both levels: on subgoals
    `jump` steps apart, and on the rows of every segment; the chain that is traced is the high level's.
    """
    high, low = levels_of(config, spec, guide, trace)
    tracked = config.follow == "states" and config.control == "model"
    ahead = config.lookahead
    control = inverse(config.inverse, spec.action_dim, ahead, spec.goal) if tracked else None
    parts = HierarchicalParts(config, spec, high, control, ahead=ahead, low=low)
    length, offsets = config.segments * config.jump + 1, tuple(range(config.horizon))
    return planners.method(parts, init, update, plan, offsets=offsets, lengths=(length, length, high.rows))
