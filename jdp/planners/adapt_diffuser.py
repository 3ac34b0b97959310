"""AdaptDiffuser (Liang et al. 2023, arXiv 2302.01877): learn from one's own plans that pass a test."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.segments import SegmentRows
from jdp.errors import UserError
from jdp.learning.averaged import Averaged
from jdp.planners.diffuser import DiffuserPlannerConfig, DiffuserPlannerState, diffuser
from jdp.planners.inverse import InverseConfig, inverse, near_pair, track
from jdp.planners.scale import clip_action
from jdp.planners.trajectory import critic
from jdp.types import AnyArray, Planner, Segments, Spec, named_keys


@dataclass(frozen=True)
class AdaptDiffuserConfig:
    """Settings of AdaptDiffuser: those of Diffuser, of the test that plans must pass, and of the rounds."""

    diffuser: DiffuserPlannerConfig = field(default_factory=DiffuserPlannerConfig)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    rounds: int = 2
    """How often plans are made, kept and learned from."""
    plans: int = 10_000
    """Plans made in a round, before the test."""
    finetune_share: float = 0.25
    """Gradient steps of a round, as a share of those of the first training."""
    imagined_share: float = 0.5
    """Share of kept plans in the batches of a round; the rest is data."""
    value_quantile: float = 0.8
    """Tasks with rewards: the critic must value a plan above this quantile of its values of real segments."""
    error_quantile: float = 0.5
    """Share of the plans that count as consistent: those whose actions differ least from the inverse model's.
    Not compared with data: on deterministic tasks no drawn plan is as exact."""
    quantile: float = 0.99
    """Of the longest step and the largest action of real segments, which plans must not exceed by far."""
    slack: float = 1.2
    """By how much they may: drawn plans are not as exact as data."""
    reference: int = 256
    """Real segments that plans are compared with."""
    lookahead: int = 8
    """On tasks with goals planned states are tracked by the inverse model, so many steps ahead."""

    def __post_init__(self) -> None:
        if self.diffuser.stride != 1:
            raise UserError(
                f"AdaptDiffuser learns from whole plans: choose diffuser.stride 1, not {self.diffuser.stride}"
            )
        for name in ("finetune_share", "imagined_share", "value_quantile", "error_quantile", "quantile"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a share: choose it from 0 to 1, not {getattr(self, name)}")

    def steps(self, updates: int) -> tuple[int, int]:
        """`(of a round, in all)`, gradient steps where the first training takes `updates`."""
        each = round(self.finetune_share * updates)
        return each, updates + self.rounds * each


def trained_for(config: AdaptDiffuserConfig, updates: int) -> AdaptDiffuserConfig:
    """`config` with the learning rates spread over the training of `updates` steps and all rounds after it.

    Their cosines fall to 0 at their `steps`: without room for the rounds nothing would be learned in them.
    """
    total, inner = config.steps(updates)[1], config.diffuser
    inner = replace(inner, model=replace(inner.model, steps=total), critic=replace(inner.critic, steps=total))
    return replace(config, diffuser=inner, inverse=replace(config.inverse, steps=total))


class Measures(NamedTuple):
    """What segments are tested by; P entries of the observation count, those of the goal or all."""

    value: (
        Array | None
    )  # [B], the critic's estimate, in units of discounted returns; none on tasks with goals
    error: Array  # [B], root mean square of action minus inverse model, standardised
    step: Array  # [B, P], longest step in each entry, standardised
    action: Array  # [B], largest absolute action of the inverse model, in units of the task
    miss: Array  # [B, P], distance of the last row to the goal, likewise; 0 without goals


def select(found: Measures, real: Measures, config: AdaptDiffuserConfig) -> Array:
    """`[B]` bool, which plans pass: bars are quantiles of the same measures of real segments `[R]`.

    So the bar of the value is in the critic's own units (discounted and as cautious as its regression), and
    moves with it; the paper's are undiscounted returns, which no discounted value attains. The error is
    compared among the plans: give many at once.
    """
    step = config.slack * jnp.quantile(real.step, config.quantile, axis=0)[None]
    action = config.slack * jnp.maximum(jnp.quantile(real.action, config.quantile), 1.0)
    keep = found.error <= jnp.quantile(found.error, config.error_quantile)
    keep &= jnp.all((found.step <= step) & (found.miss <= step), axis=1) & (found.action <= action)
    if found.value is not None and real.value is not None:
        keep &= found.value >= jnp.quantile(real.value, config.value_quantile)
    return keep


def kept(segments: Segments, keep: AnyArray, config: AdaptDiffuserConfig) -> Segments:
    """The segments that passed, on the host: `[K, L, ...]`, for `jdp.data.rows_of`.

    Raises:
        UserError: if none did.
    """
    chosen = np.flatnonzero(np.asarray(keep))
    if not len(chosen):
        best = float(np.asarray(segments.value[:, 0]).max())
        raise UserError(
            f"AdaptDiffuser kept none of {len(keep)} plans (highest value {best:.4g}): train longer, lower "
            f"value_quantile ({config.value_quantile:g}) or raise slack ({config.slack:g})"
        )
    return jax.tree.map(lambda x: np.asarray(x)[chosen], segments)


class AdaptDiffuserState(NamedTuple):
    """What AdaptDiffuser learned, and the real segments that its plans are compared with."""

    planner: DiffuserPlannerState
    inverse: Averaged
    observation: Array  # [R, L, O]
    action: Array  # [R, L, A]


@lru_cache(maxsize=64)
def adapt_diffuser(config: AdaptDiffuserConfig, spec: Spec) -> Planner:
    """Diffuser, an inverse model of single steps, and `imagine`, which plans and tests the plans.

    `imagine(key, state, observation [B, O], goal [B, G]) -> (segments [B, horizon, ...], keep [B])`: plans
    from given states (and to given goals), their actions replaced by those of the inverse model between
    planned states (the last row keeps its own). Kept are plans whose planned actions agree best with these,
    whose steps are no longer than real ones, whose actions stay within the box, and which the critic
    values highly (`select`); on tasks with goals those that arrive instead. In the segments `value` is the
    critic's estimate in every row (0 with goals), of which Diffuser learns from the first; `reward` and
    `terminal` are unknown and 0; `distance` is that of the last row.

    A round of fine-tuning is `imagine`, `kept`, `jdp.data.rows_of`, and updates on batches mixed from data
    and kept segments; see `trained_for` on learning rates. Departures: the tests are relative to real
    segments; states are not rolled out in a simulator, the error of the inverse model judges them.
    """
    base, horizon = diffuser(config.diffuser, spec), config.diffuser.horizon
    if spec.goal and not 1 <= config.lookahead < horizon:
        raise UserError(f"lookahead is {config.lookahead}: choose 1 to {horizon - 1}")
    judge = None if spec.goal else critic(config.diffuser.critic)
    reach = config.lookahead if spec.goal else 1
    control = inverse(config.inverse, spec.action_dim, reach, spec.goal)
    entries = jnp.array(spec.goal or range(spec.observation_dim), jnp.int32)

    def init(key: Array, data: SegmentRows) -> AdaptDiffuserState:
        keys = named_keys(key, "planner", "inverse")
        starts, last = jnp.asarray(data.starts), jnp.asarray(data.last)
        drawn = jnp.arange(config.reference) * starts.shape[0] // config.reference
        at = jnp.minimum(starts[drawn][:, None] + jnp.arange(horizon)[None], last[drawn][:, None])
        s, action = jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, spec.action_dim))
        return AdaptDiffuserState(
            base.init(keys["planner"], data),
            control.init(keys["inverse"], s, s, action),
            jnp.asarray(data.observation)[at],
            jnp.asarray(data.action)[at],
        )

    def update(key: Array, state: AdaptDiffuserState, batch: Segments):
        keys = named_keys(key, "planner", "pair", "inverse")
        planner, metrics = base.update(keys["planner"], state.planner, batch)
        pair = near_pair(keys["pair"], batch, state.planner.scale, reach)
        learned, more = control.update(keys["inverse"], state.inverse, *pair)
        return state._replace(planner=planner, inverse=learned), {**metrics, **more}

    def plan(key: Array, state: AdaptDiffuserState, carry, observation: Array, goal: Array):
        return base.plan(key, state.planner, carry, observation, goal)

    def act(key: Array, state: AdaptDiffuserState, plan, elapsed: Array, observation: Array) -> Array:
        if not spec.goal:
            return base.act(key, state.planner, plan, elapsed, observation)

        def towards(*args: Array) -> Array:
            return control.act(key, state.inverse, *args)

        return track(towards, state.planner.scale, plan, 1, elapsed, observation, reach)

    def measure(key: Array, state: AdaptDiffuserState, observation: Array, action: Array, goal: Array | None):
        """`(Measures, actions of the inverse model [B, L - 1, A])` of segments `[B, L, ...]`."""
        scale, (batch, length, o) = state.planner.scale, observation.shape
        s, planned = scale.observation(observation), scale.action(action)
        here, there = (x.reshape(-1, o) for x in (s[:, :-1], s[:, 1:]))
        found = control.act(key, state.inverse, here, there, jnp.ones(here.shape[0], jnp.int32))
        found = found.reshape(batch, length - 1, -1)
        actual = scale.action.inverse(found)
        value = None
        if judge is not None:
            x0, none = jnp.concatenate([s, planned], axis=-1), jnp.zeros((batch, 0))
            value = judge.value(state.planner.critic, none)(x0, jnp.zeros(batch))
            value = scale.value.inverse(value[:, None])[:, 0]
        step = jnp.max(jnp.abs(s[:, 1:] - s[:, :-1])[..., entries], axis=1)
        miss = jnp.zeros_like(step) if goal is None else jnp.abs(s[:, -1, entries] - scale.goal(goal, spec))
        measures = Measures(
            value,
            jnp.sqrt(jnp.mean(jnp.square(found - planned[:, :-1]), axis=(1, 2))),
            step,
            jnp.max(jnp.abs(actual), axis=(1, 2)),
            miss,
        )
        return measures, actual

    def imagine(key: Array, state: AdaptDiffuserState, observation: Array, goal: Array):
        keys = named_keys(key, "plan", "found", "real")
        plan = base.plan(keys["plan"], state.planner, base.start(observation)[0], observation, goal)[1]
        aim = goal if spec.goal else None
        found, actual = measure(keys["found"], state, plan.observation, plan.action, aim)
        real, _ = measure(keys["real"], state, state.observation, state.action, None)
        nothing = jnp.zeros(plan.action.shape[:2])
        value = plan.value if found.value is None else found.value
        segments = Segments(
            plan.observation,
            jnp.concatenate([clip_action(actual), plan.action[:, -1:]], axis=1),
            nothing,
            nothing,
            jnp.broadcast_to(value[:, None], nothing.shape),
            goal,
            jnp.full(nothing.shape[:1], horizon - 1, jnp.int32),
        )
        return segments, select(found, real, config)

    return base._replace(init=init, update=update, plan=plan, act=act, imagine=imagine)
