"""Diffuser (Janner, Du, Tenenbaum and Levine 2022, arXiv 2205.09991): denoise plans, steer by a value."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.segments import SegmentRows
from jdp.errors import UserError, check_choices
from jdp.learning.averaged import Averaged
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
from jdp.types import Plan, Planner, PyTree, Segments, Spec, named_keys


@dataclass(frozen=True)
class DiffuserPlannerConfig:
    """Settings of Diffuser."""

    horizon: int = 32
    """Steps that a plan spans (a multiple of `stride`)."""
    stride: int = 1
    """Steps between two rows of a plan; above 1 (a departure, for long mazes) rows hold states only, and an
    inverse model finds the actions."""
    replan_every: int = 1
    """Steps that a plan is followed."""
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
    model: ModelConfig = field(default_factory=ModelConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(warm_steps=0))
    """Warm starts are for one candidate: choosing the most valued of several re-noised copies of the last
    choice, step after step, breeds plans that only the critic believes in (on hopper it falls at once)."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_horizon(self.horizon, self.stride, self.replan_every)
        check_candidates(self.candidates)


def check_candidates(count: int) -> None:
    """Raises `UserError` unless there is a plan to choose from."""
    if count < 1:
        raise UserError(f"candidates is {count}: draw at least one plan")


def check_horizon(horizon: int, stride: int, replan_every: int) -> None:
    """Raises `UserError` unless rows of `stride` steps fill the horizon and a plan lasts until the next."""
    if stride < 1 or horizon % stride or horizon < 2 * stride:
        raise UserError(
            f"a horizon of {horizon} steps is not divisible into two or more rows of {stride}: choose a "
            f"multiple of the stride, for instance {max(2, round(horizon / max(stride, 1))) * max(stride, 1)}"
        )
    if not 1 <= replan_every <= horizon:
        raise UserError(f"replan_every is {replan_every}: a plan of {horizon} steps lasts 1 to {horizon}")


class DiffuserPlannerState(NamedTuple):
    """What Diffuser learned."""

    scale: Scale
    model: Averaged
    critic: PyTree  # Averaged; of tasks with rewards, else None
    inverse: PyTree  # Averaged; of plans of states, else None


@lru_cache(maxsize=64)
def diffuser(config: DiffuserPlannerConfig, spec: Spec) -> Planner:
    """Denoises rows `[observation, action]` given the present, steered by a value, or to a goal in mazes.

    On tasks with rewards, a critic of noisy plans regresses the discounted return to go; its gradient
    steers every denoising step, and the candidate it values most is followed. On tasks with goals the goal's
    entries of the last row are given instead (inpainting), as in the paper's mazes. Conditions are exact:
    given entries are shown without noise in training and in sampling (`jdp.diffusion.guidance.hold`).

    Departures: values are standardised, so one `guidance` serves all datasets; the gradient acts at the
    denoised plan unless `guidance_point` is "noised"; only the goal's entries of the last row are
    given, not a velocity of zero.
    """
    o, a, rows = spec.observation_dim, spec.action_dim, config.horizon // config.stride
    dense = config.stride == 1
    extra = a if dense else 0
    net, judge = model(config.model), None if spec.goal else critic(config.critic)
    control = None if dense else inverse(config.inverse, a, config.stride, spec.goal)
    # A segment begins with consecutive steps, which the inverse model learns from.
    near = range(config.stride + 1) if not dense else range(1)
    offsets = tuple(sorted({*near, *range(0, config.horizon, config.stride)}))
    at = jnp.array([offsets.index(i) for i in range(0, config.horizon, config.stride)])
    mask = known_mask(rows, o, extra, spec)
    weight = jnp.ones((rows, o + extra)).at[0, o:].set(config.action_weight)

    def init(key: Array, data: SegmentRows) -> DiffuserPlannerState:
        keys = named_keys(key, "model", "critic", "inverse")
        x0, none = jnp.zeros((1, rows, o + extra)), jnp.zeros((1, 0))
        s, action = jnp.zeros((1, o)), jnp.zeros((1, a))
        return DiffuserPlannerState(
            fit_scale(data),
            net.init(keys["model"], x0, none),
            None if judge is None else judge.init(keys["critic"], x0, none),
            None if control is None else control.init(keys["inverse"], s, s, action),
        )

    def update(key: Array, state: DiffuserPlannerState, batch: Segments):
        keys = named_keys(key, "model", "critic", "pair", "inverse")
        x0, none = encode(state.scale, batch), jnp.zeros((batch.reward.shape[0], 0))
        learned, metrics = net.update(keys["model"], state.model, x0, none, mask[None], weight[None])
        state = state._replace(model=learned)
        if judge is not None:
            target = state.scale.value(batch.value[:, :1])[:, 0]
            learned, more = judge.update(keys["critic"], state.critic, x0, none, mask[None], target)
            state, metrics = state._replace(critic=learned), {**metrics, **more}
        if control is not None:
            pair = near_pair(keys["pair"], batch, state.scale, config.stride)
            learned, more = control.update(keys["inverse"], state.inverse, *pair)
            state, metrics = state._replace(inverse=learned), {**metrics, **more}
        return state, metrics

    def encode(scale: Scale, batch: Segments) -> Array:
        x = scale.observation(batch.observation[:, at])
        return jnp.concatenate([x, scale.action(batch.action[:, at])], axis=-1) if dense else x

    def start(observation: Array) -> tuple[Previous, Plan]:
        batch = observation.shape[0]
        return nothing_planned(batch, rows, o + extra), Plan(
            jnp.zeros((batch, rows, o)),
            jnp.zeros((batch, rows if dense else 0, a)),
            jnp.zeros(batch),
            jnp.zeros((batch, 0, o)),
        )

    def plan(key: Array, state: DiffuserPlannerState, carry: Previous, observation: Array, goal: Array):
        known, given = with_goal(
            state.scale.observation(observation),
            state.scale.goal(goal, spec) if spec.goal else goal,
            rows,
            extra,
            spec,
        )
        none = jnp.zeros((known.shape[0] * config.candidates, 0))
        x0, score = draw_best(
            key,
            net.denoiser(state.model, none),
            None if judge is None else judge.value(state.critic, none),
            known,
            given,
            Previous(shifted(carry.plan, config.replan_every / config.stride), carry.planned),
            config.sampling,
            plan_schedule(config.sampling, config.model.formulation),
            Steering(config.guidance, config.guidance_point, config.guidance_steps),
            config.candidates,
        )
        return Previous(x0, jnp.ones((), bool)), decode(state.scale, x0, score)

    def decode(scale: Scale, x0: Array, score: Array) -> Plan:
        action = clip_action(scale.action.inverse(x0[..., o:])) if dense else jnp.zeros((x0.shape[0], 0, a))
        value = scale.value.inverse(score[:, None])[:, 0] if judge is not None else score
        return Plan(scale.observation.inverse(x0[..., :o]), action, value, jnp.zeros((x0.shape[0], 0, o)))

    def play(key: Array, state: PyTree, plan: Plan, elapsed: Array, observation: Array) -> Array:
        return plan.action[:, jnp.minimum(elapsed, rows - 1)]

    act = play if control is None else pursue(control, config.stride)
    return Planner(
        init, update, start, plan, act, offsets, config.horizon, config.stride, config.replan_every
    )
