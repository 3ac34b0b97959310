"""Decision Diffuser (Ajay et al. 2023, arXiv 2211.15657): plans of states, given a return."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data.segments import Hindsight, SegmentRows
from jdp.diffusion.guidance import classifier_free_doubled
from jdp.learning.averaged import Averaged
from jdp.planners.diffuser import check_horizon
from jdp.planners.inverse import InverseConfig, inverse, near_pair
from jdp.planners.models import ModelConfig, model
from jdp.planners.scale import Scale, Span, fit_scale, fit_span, known_mask, with_goal
from jdp.planners.states import pursue, row_offsets, start, states_plan
from jdp.planners.trajectory import Previous, SamplingConfig, draw_plan, plan_schedule, shifted
from jdp.types import Denoiser, Planner, Segments, Spec, named_keys


@dataclass(frozen=True)
class DecisionDiffuserConfig:
    """Settings of Decision Diffuser."""

    horizon: int = 32
    """Steps that a plan spans (a multiple of `stride`)."""
    stride: int = 1
    """Steps between two rows of a plan (above 1 a departure, for long mazes)."""
    replan_every: int = 1
    """Steps that a plan is followed."""
    target: float = 0.95
    """The return asked for: 0 is the least, 1 the greatest of the dataset. Unused on tasks with goals."""
    guidance: float = 1.2
    """Weight w of the condition; 1: the conditional model, above: the condition is exaggerated."""
    dropped: float = 0.25
    """Share of training plans whose condition is not shown, from which the unconditional model learns."""
    next_weight: float = 1.0
    """Weight of row 1 in the loss, on which the action depends (10 in some later codes)."""
    reach: float = 1.0
    """How far ahead hindsight goals lie at most, in horizons."""
    model: ModelConfig = field(default_factory=ModelConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(steps=20, warm_steps=8, temperature=0.5)
    )

    def __post_init__(self) -> None:
        check_horizon(self.horizon, self.stride, self.replan_every)

    @property
    def hindsight(self) -> Hindsight:
        """Later rows of the episode, up to `reach` horizons ahead.

        So a plan is shown goals that it passes, at any of its rows alike; the share of plans that pass a goal
        soon and stay near it grows with `guidance`. Goals beyond the horizon (`reach` above 1) teach which
        way leads towards what a plan cannot reach, at the cost of fewer plans that arrive.
        """
        return Hindsight(later=1.0, reach=max(1, round(self.reach * self.horizon)))


class DecisionDiffuserState(NamedTuple):
    """What Decision Diffuser learned."""

    scale: Scale
    span: Span
    model: Averaged
    inverse: Averaged


def flagged(condition: Array, given: Array) -> Array:
    """`[B, C + 1]`, the condition `[B, C]` and a flag 1; zeros in the rows where `given` `[B]` is False."""
    flag = given.astype(condition.dtype)[:, None]
    return jnp.concatenate([flag * condition, flag], axis=-1)


@lru_cache(maxsize=64)
def decision_diffuser(config: DecisionDiffuserConfig, spec: Spec) -> Planner:
    """Denoises states given the present and, free of classifiers, the return; an inverse model acts.

    The network learns with the condition and without it (zeros, and a flag that says so), and a plan is
    drawn from `D_u + w (D_c - D_u)` (arXiv 2207.12598) at a low temperature, in one call of twice the
    batch a step. On tasks with goals the condition is the goal, in hindsight, instead of the return: a wish
    that steers the plan, where Diffuser prescribes the entries of its last row.

    Departures: the network sees standardised returns; the present is shown without noise in training and
    sampling (`jdp.diffusion.guidance.hold`); the temperature scales the initial noise alone, which under an
    ODE scales every deviation from the mean; the inverse model has its own optimiser.
    """
    o, rows = spec.observation_dim, config.horizon // config.stride
    net = model(config.model)
    control = inverse(config.inverse, spec.action_dim, config.stride, spec.goal)
    offsets, at = row_offsets(config.horizon, config.stride)
    present = replace(spec, goal=())  # the goal is a condition, and no entry of the plan
    mask = known_mask(rows, o, 0, present)
    weight = jnp.ones((rows, o)).at[1].set(config.next_weight)
    width = len(spec.goal) or 1

    def init(key: Array, data: SegmentRows) -> DecisionDiffuserState:
        keys = named_keys(key, "model", "inverse")
        x0, condition = jnp.zeros((1, rows, o)), jnp.zeros((1, width + 1))
        s, action = jnp.zeros((1, o)), jnp.zeros((1, spec.action_dim))
        learned = net.init(keys["model"], x0, condition), control.init(keys["inverse"], s, s, action)
        return DecisionDiffuserState(fit_scale(data), fit_span(data), *learned)

    def update(key: Array, state: DecisionDiffuserState, batch: Segments):
        keys = named_keys(key, "drop", "model", "pair", "inverse")
        x0 = state.scale.observation(batch.observation[:, jnp.array(at)])
        outcome = state.scale.goal(batch.goal, spec) if spec.goal else state.scale.value(batch.value[:, :1])
        given = jax.random.bernoulli(keys["drop"], 1 - config.dropped, (x0.shape[0],))
        condition = flagged(outcome, given)
        learned, metrics = net.update(keys["model"], state.model, x0, condition, mask[None], weight[None])
        pair = near_pair(keys["pair"], batch, state.scale, config.stride)
        follows, more = control.update(keys["inverse"], state.inverse, *pair)
        return state._replace(model=learned, inverse=follows), {**metrics, **more}

    def guided(state: DecisionDiffuserState, goal: Array) -> Denoiser:
        wish = jnp.full((goal.shape[0], 1), config.target)
        wish = state.scale.goal(goal, spec) if spec.goal else state.scale.value(state.span.inverse(wish))
        condition = flagged(wish, jnp.ones(wish.shape[0], bool))
        if config.guidance == 1.0:
            return net.denoiser(state.model, condition)
        both = jnp.concatenate([condition, jnp.zeros_like(condition)])
        return classifier_free_doubled(net.denoiser(state.model, both), config.guidance)

    def plan(key: Array, state: DecisionDiffuserState, carry: Previous, observation: Array, goal: Array):
        now = state.scale.observation(observation)
        known, given = with_goal(now, goal, rows, 0, present)
        last = Previous(shifted(carry.plan, config.replan_every / config.stride), carry.planned)
        schedule = plan_schedule(config.sampling, config.model.formulation)
        x0 = draw_plan(key, guided(state, goal), known, given, last, config.sampling, schedule)
        return Previous(x0, jnp.ones((), bool)), states_plan(state.scale, x0, jnp.zeros(x0.shape[0]))

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
