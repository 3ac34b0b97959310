"""Diffusion Veteran (Lu et al. 2025, arXiv 2503.00535): the best of many unguided plans of states."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.segments import FAR, Hindsight, SegmentRows
from jdp.errors import check_choices
from jdp.learning.averaged import Averaged
from jdp.planners.diffuser import check_candidates, check_horizon
from jdp.planners.inverse import InverseConfig, inverse, near_pair
from jdp.planners.models import ModelConfig, model
from jdp.planners.scale import Scale, Span, fit_scale, fit_span, known_mask, with_goal
from jdp.planners.states import pursue, row_offsets, start, states_plan
from jdp.planners.trajectory import (
    CriticConfig,
    Previous,
    SamplingConfig,
    Steering,
    candidates_of,
    critic,
    draw_best,
    plan_schedule,
    shifted,
)
from jdp.types import Planner, Segments, Spec, named_keys


@dataclass(frozen=True)
class VeteranConfig:
    """Settings of Diffusion Veteran."""

    horizon: int = 4
    """Steps that a plan spans (a multiple of `stride`)."""
    stride: int = 1
    """Steps between two rows of a plan."""
    replan_every: int = 1
    """Steps that a plan is followed."""
    candidates: int = 50
    """Plans drawn at a decision; the one that the critic values most is followed."""
    goals: Literal["condition", "last_row", "critic"] = "condition"
    """Who knows the goal beside the critic: the denoiser as a condition, as the last row, or nobody."""
    weighting: float = 2.0
    """Plans weigh `exp(weighting (v - 1))` in the denoiser's loss, where v is the return within -1 .. 1; 0:
    all plans weigh the same, as they do on tasks with goals."""
    reach: float = 2.0
    """How far ahead hindsight goals lie at most, in horizons: beyond that the critic tells nothing apart."""
    model: ModelConfig = field(default_factory=ModelConfig)
    critic: CriticConfig = field(default_factory=lambda: CriticConfig(noisy=False))
    inverse: InverseConfig = field(
        default_factory=lambda: InverseConfig(kind="diffusion", hidden=(256, 256, 256))
    )
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=20, warm_steps=0))

    def __post_init__(self) -> None:
        check_choices(self)
        check_horizon(self.horizon, self.stride, self.replan_every)
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


@lru_cache(maxsize=64)
def veteran(config: VeteranConfig, spec: Spec) -> Planner:
    """Draws many plans of states given the present, without guidance, and follows the critic's choice.

    The critic regresses what a clean plan comes to: on tasks with rewards the discounted return from its
    first row to the episode's end; on tasks with goals minus the steps to a goal in hindsight, within the
    plan or beyond it (`reach`), so that plans which do not arrive are judged by where they end. That is the
    paper's reward of -1 a step in mazes, learned for all goals at once. Drawing plans without knowing the
    goal (`goals="critic"`) is the paper's way too, where the goal is fixed; far goals in a large maze are
    then met by few of the candidates. "last_row" prescribes the goal's entries there, as in Diffuser:
    plans arrive at the very end. By default the denoiser has the hindsight goal as a condition, without
    exaggeration, and candidates pass the goal sooner or later; the critic takes the soonest.

    Departures: EDM in place of a VP SDE unless `model.formulation` says otherwise; the critic is the small
    "pooled" network unless `critic.network` says "transformer"; it regresses standardised returns, which rank
    plans as those within -1 .. 1 do.
    """
    o, rows = spec.observation_dim, config.horizon // config.stride
    net, judge = model(config.model), critic(config.critic)
    control = inverse(config.inverse, spec.action_dim, config.stride, spec.goal)
    offsets, at = row_offsets(config.horizon, config.stride)
    given = spec if config.goals == "last_row" else replace(spec, goal=())
    mask = known_mask(rows, o, 0, given)
    conditioned = bool(spec.goal) and config.goals == "condition"

    def init(key: Array, data: SegmentRows) -> VeteranState:
        keys = named_keys(key, "model", "critic", "inverse")
        x0, goal = jnp.zeros((1, rows, o)), jnp.zeros((1, len(spec.goal)))
        s, action = jnp.zeros((1, o)), jnp.zeros((1, spec.action_dim))
        return VeteranState(
            fit_scale(data),
            fit_span(data),
            net.init(keys["model"], x0, shown(goal)),
            judge.init(keys["critic"], x0, goal),
            control.init(keys["inverse"], s, s, action),
        )

    def shown(goal: Array) -> Array:
        return goal if conditioned else goal[:, :0]

    def update(key: Array, state: VeteranState, batch: Segments):
        keys = named_keys(key, "model", "critic", "pair", "inverse")
        x0 = state.scale.observation(batch.observation[:, jnp.array(at)])
        goal = state.scale.goal(batch.goal, spec) if spec.goal else batch.goal
        weight = weights(state, batch)[:, None, None]
        learned, metrics = net.update(keys["model"], state.model, x0, shown(goal), mask[None], weight)
        judged, more = judge.update(keys["critic"], state.critic, x0, goal, mask[None], outcome(state, batch))
        pair = near_pair(keys["pair"], batch, state.scale, config.stride)
        follows, most = control.update(keys["inverse"], state.inverse, *pair)
        state = state._replace(model=learned, critic=judged, inverse=follows)
        return state, {**metrics, **more, **most}

    def weights(state: VeteranState, batch: Segments) -> Array:
        if conditioned:  # plans say nothing of a goal of another episode
            return (batch.distance < FAR).astype(batch.value.dtype)
        if spec.goal:
            return jnp.ones_like(batch.value[:, 0])
        return jnp.exp(config.weighting * 2 * (state.span(batch.value[:, 0]) - 1))

    def outcome(state: VeteranState, batch: Segments) -> Array:
        if not spec.goal:
            return state.scale.value(batch.value[:, :1])[:, 0]
        steps = jnp.minimum(batch.distance, config.furthest).astype(batch.value.dtype)
        return -steps / config.horizon

    def plan(key: Array, state: VeteranState, carry: Previous, observation: Array, goal: Array):
        wish = state.scale.goal(goal, spec) if spec.goal else goal
        known, held = with_goal(state.scale.observation(observation), wish, rows, 0, given)
        wishes = candidates_of(wish, config.candidates)
        x0, score = draw_best(
            key,
            net.denoiser(state.model, shown(wishes)),
            judge.value(state.critic, wishes),
            known,
            held,
            Previous(shifted(carry.plan, config.replan_every / config.stride), carry.planned),
            config.sampling,
            plan_schedule(config.sampling, config.model.formulation),
            Steering(0.0),
            config.candidates,
        )
        value = config.horizon * score if spec.goal else state.scale.value.inverse(score[:, None])[:, 0]
        return Previous(x0, jnp.ones((), bool)), states_plan(state.scale, x0, value)

    return Planner(
        init,
        update,
        start(rows, spec.action_dim),
        plan,
        pursue(control, config.stride),
        offsets,
        config.horizon,
        config.stride,
        config.replan_every,
    )
