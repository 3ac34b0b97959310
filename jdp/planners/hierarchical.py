"""Hierarchical Diffuser (Chen et al. 2024, arXiv 2401.02644): denoise subgoals, then what lies between."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.data.segments import SegmentRows
from jdp.errors import UserError, check_choices
from jdp.learning.averaged import Averaged
from jdp.planners.diffuser import check_candidates, check_horizon
from jdp.planners.inverse import InverseConfig, inverse, near_pair
from jdp.planners.models import ModelConfig, model
from jdp.planners.scale import Scale, clip_action, fit_scale, known_mask, with_goal
from jdp.planners.states import pursue
from jdp.planners.trajectory import (
    CriticConfig,
    Previous,
    SamplingConfig,
    Steering,
    critic,
    draw_best,
    nothing_planned,
    plan_schedule,
    shifted,
)
from jdp.types import Denoiser, Plan, Planner, PyTree, Segments, Spec, named_keys


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


def ends_mask(jump: int, observation_dim: int, extra: int) -> Array:
    """`[K + 1, O + extra]` bool: the observations of the first and of the last row."""
    mask = jnp.zeros((jump + 1, observation_dim + extra), bool)
    return mask.at[0, :observation_dim].set(True).at[-1, :observation_dim].set(True)


def segment(
    key: Array,
    denoiser: Denoiser,
    value: Partial | None,
    ends: Array,
    schedule: Array,
    *,
    config: HierarchicalConfig,
    extra: int,
    count: int,
) -> Array:
    """`[B, K + 1, O + extra]`, a draw of rows `[observation, action]` that hits `ends` `[B, 2, O]`."""
    batch, _, o = ends.shape
    known = jnp.zeros((batch, config.jump + 1, o + extra), ends.dtype)
    known = known.at[:, 0, :o].set(ends[:, 0]).at[:, -1, :o].set(ends[:, 1])
    mask = jnp.broadcast_to(ends_mask(config.jump, o, extra)[None], known.shape)
    nothing = Previous(jnp.zeros_like(known), jnp.zeros((), bool))
    steering = Steering(config.low_guidance, config.guidance_point, config.guidance_steps)
    return draw_best(
        key, denoiser, value, known, mask, nothing, config.low_sampling, schedule, steering, count
    )[0]


def joined(segments: Array) -> Array:
    """`[S, B, K + 1, D]`, segments that share their ends, as one plan `[B, S K + 1, D]`."""
    s, batch, length, channels = segments.shape
    rows = jnp.moveaxis(segments[:, :, :-1], 0, 1).reshape(batch, s * (length - 1), channels)
    return jnp.concatenate([rows, segments[-1, :, -1:]], axis=1)


@lru_cache(maxsize=64)
def hierarchical(config: HierarchicalConfig, spec: Spec) -> Planner:
    """Denoises every K-th state given the present, then the steps between them given both ends.

    The high level is Diffuser on rows `jump` steps apart: on tasks with rewards each row also holds the
    actions up to the next ("dense actions"), a critic steers, and the best of the candidates is refined;
    on tasks with goals rows hold states, and the goal's entries of the last row are given. The low level
    fills in segments of `jump + 1` rows `[observation, action]`, all of a decision in one batch, each with a
    key of its own. Consecutive segments share an end, so the joined plan, of stride 1, has no gap;
    `Plan.subgoal` holds the high-level states, the present first.

    The low level learns from segments that begin at any row of the drawn one, so ends of episodes are
    seen as well. Departures: those of Diffuser (`jdp.planners.diffuser`), and a low-level critic only on
    request.
    """
    o, a, k, rows = spec.observation_dim, spec.action_dim, config.jump, config.horizon // config.jump
    extra = 0 if spec.goal else k * a
    high, low = model(config.high), model(config.low)
    judge = None if spec.goal else critic(config.critic)
    low_judge = judge if config.low_guidance or config.low_candidates > 1 else None
    control = inverse(config.inverse, a, config.lookahead, spec.goal) if config.follow == "states" else None
    mask, ends = known_mask(rows, o, extra, spec), ends_mask(k, o, a)
    weight = jnp.ones((k + 1, o + a)).at[0, o:].set(config.action_weight)
    length = config.segments * k + 1

    def init(key: Array, data: SegmentRows) -> HierarchicalState:
        keys = named_keys(key, "high", "low", "critic", "low_critic", "inverse")
        x0, y0 = jnp.zeros((1, rows, o + extra)), jnp.zeros((1, k + 1, o + a))
        none, s = jnp.zeros((1, 0)), jnp.zeros((1, o))
        return HierarchicalState(
            fit_scale(data),
            high.init(keys["high"], x0, none),
            low.init(keys["low"], y0, none),
            None if judge is None else judge.init(keys["critic"], x0, none),
            None if low_judge is None else low_judge.init(keys["low_critic"], y0, none),
            None if control is None else control.init(keys["inverse"], s, s, jnp.zeros((1, a))),
        )

    def update(key: Array, state: HierarchicalState, batch: Segments):
        keys = named_keys(key, "high", "low", "critic", "low_critic", "begin", "pair", "inverse")
        scale, none = state.scale, jnp.zeros((batch.reward.shape[0], 0))
        x0, (y0, begin) = encode(scale, batch), encode_low(keys["begin"], scale, batch)
        ones = jnp.ones((1, 1, 1))
        learned_high, metrics = high.update(keys["high"], state.high, x0, none, mask[None], ones)
        learned_low, more = low.update(keys["low"], state.low, y0, none, ends[None], weight[None])
        metrics = {**metrics, **{f"low_{name}": x for name, x in more.items()}}
        state = state._replace(high=learned_high, low=learned_low)
        if judge is not None:
            target = scale.value(batch.value[:, :1])[:, 0]
            learned, more = judge.update(keys["critic"], state.critic, x0, none, mask[None], target)
            state, metrics = state._replace(critic=learned), {**metrics, **more}
        if low_judge is not None:
            target = scale.value(jnp.take_along_axis(batch.value, begin[:, None], axis=1))[:, 0]
            learned, more = low_judge.update(
                keys["low_critic"], state.low_critic, y0, none, ends[None], target
            )
            more = {f"low_{name}": x for name, x in more.items()}
            state, metrics = state._replace(low_critic=learned), {**metrics, **more}
        if control is not None:
            pair = near_pair(keys["pair"], batch, scale, config.lookahead)
            learned, more = control.update(keys["inverse"], state.inverse, *pair)
            state, metrics = state._replace(inverse=learned), {**metrics, **more}
        return state, metrics

    def encode(scale: Scale, batch: Segments) -> Array:
        x = scale.observation(batch.observation[:, ::k])
        dense = scale.action(batch.action).reshape(x.shape[0], rows, k * a)
        return jnp.concatenate([x, dense], axis=-1) if extra else x

    def encode_low(key: Array, scale: Scale, batch: Segments) -> tuple[Array, Array]:
        """`[B, K + 1, O + A]`, the rows from `begin` `[B]` on."""
        begin = jax.random.randint(key, batch.reward.shape[:1], 0, config.horizon - k)
        at = (begin[:, None] + jnp.arange(k + 1)[None])[:, :, None]
        observation = jnp.take_along_axis(batch.observation, at, axis=1)
        action = jnp.take_along_axis(batch.action, at, axis=1)
        return jnp.concatenate([scale.observation(observation), scale.action(action)], axis=-1), begin

    def later(x: Array) -> Array:
        """The high-level plan as seen `replan_every` steps later; its actions are one sequence of steps."""
        subgoals = shifted(x[..., :o], config.replan_every / k)
        if not extra:
            return subgoals
        dense = shifted(x[..., o:].reshape(x.shape[0], rows * k, a), config.replan_every)
        return jnp.concatenate([subgoals, dense.reshape(x.shape[0], rows, extra)], axis=-1)

    def start(observation: Array) -> tuple[Previous, Plan]:
        batch = observation.shape[0]
        return nothing_planned(batch, rows, o + extra), Plan(
            jnp.zeros((batch, length, o)),
            jnp.zeros((batch, length, a)),
            jnp.zeros(batch),
            jnp.zeros((batch, rows, o)),
        )

    def plan(key: Array, state: HierarchicalState, carry: Previous, observation: Array, goal: Array):
        keys, scale = named_keys(key, "high", "low"), state.scale
        aim = scale.goal(goal, spec) if spec.goal else goal
        known, given = with_goal(scale.observation(observation), aim, rows, extra, spec)
        count = 1 if judge is None else config.candidates
        none = jnp.zeros((known.shape[0] * count, 0))
        value = None if judge is None else judge.value(state.critic, none)
        x0, score = draw_best(
            keys["high"],
            high.denoiser(state.high, none),
            value,
            known,
            given,
            Previous(later(carry.plan), carry.planned),
            config.sampling,
            plan_schedule(config.sampling, config.high.formulation),
            Steering(config.guidance, config.guidance_point, config.guidance_steps),
            count,
        )
        dense = joined(refine(keys["low"], state, x0[..., :o]))
        score = score if judge is None else scale.value.inverse(score[:, None])[:, 0]
        made = Plan(
            scale.observation.inverse(dense[..., :o]),
            clip_action(scale.action.inverse(dense[..., o:])),
            score,
            scale.observation.inverse(x0[..., :o]),
        )
        return Previous(x0, jnp.ones((), bool)), made

    def refine(key: Array, state: HierarchicalState, subgoals: Array) -> Array:
        """`[S, B, K + 1, O + A]`, the first S segments between `subgoals` `[B, T, O]`, as one batch."""
        count = 1 if low_judge is None else config.low_candidates
        none = jnp.zeros((subgoals.shape[0] * count, 0))
        value = None if low_judge is None else low_judge.value(state.low_critic, none)
        denoiser = low.denoiser(state.low, none)
        schedule = plan_schedule(config.low_sampling, config.low.formulation)

        def one(key: Array, pair: Array) -> Array:
            return segment(key, denoiser, value, pair, schedule, config=config, extra=a, count=count)

        s = config.segments
        pairs = jnp.stack([subgoals[:, :s], subgoals[:, 1 : s + 1]], axis=2)
        return jax.vmap(one)(jax.random.split(key, s), jnp.moveaxis(pairs, 1, 0))

    def play(key: Array, state: HierarchicalState, plan: Plan, elapsed: Array, observation: Array) -> Array:
        return plan.action[:, jnp.minimum(elapsed, length - 1)]

    offsets = tuple(range(config.horizon))
    act = play if control is None else pursue(control, 1, config.lookahead)
    return Planner(init, update, start, plan, act, offsets, config.horizon, 1, config.replan_every)
