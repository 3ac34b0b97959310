"""Decision Diffuser (Ajay et al. 2023, arXiv 2211.15657): plans of states, given a return.

Half of the file are settings, published targets, presets and the row of the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data.segments import Hindsight, SegmentRows
from jdp.diffusion.guidance.classifier_free import classifier_free_doubled, flagged
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.inverse import inverse
from jdp.learning.plan_models import model
from jdp.learning.scale import Scale, Span, fit_scale, fit_span
from jdp.planners import presets
from jdp.planners.assembly import Parts, PlannerConfig, first_weights, method, plan_of, study
from jdp.planners.following import Planned
from jdp.planners.levels import Lesson, Level, draw_best
from jdp.planners.trajectory import Previous, SamplingConfig, later, planned
from jdp.registry import Preset, Task, register
from jdp.types import Context, Denoiser, Guide, Method, Metrics, Segments, Spec, named_keys

# (target, guidance) on D4RL's locomotion sets, as CleanDiffuser (arXiv 2406.09509) tuned them.
TARGETS = {
    "halfcheetah-medium-expert-v2": (0.95, 1.2),
    "halfcheetah-medium-replay-v2": (0.95, 1.4),
    "halfcheetah-medium-v2": (1.1, 3.2),
    "hopper-medium-expert-v2": (0.95, 1.2),
    "hopper-medium-replay-v2": (0.6, 6.0),
    "hopper-medium-v2": (0.7, 4.4),
    "walker2d-medium-expert-v2": (1.0, 1.2),
    "walker2d-medium-replay-v2": (0.75, 2.4),
    "walker2d-medium-v2": (0.75, 6.0),
}


@dataclass(frozen=True)
class DecisionDiffuserConfig(PlannerConfig):
    """Settings of Decision Diffuser; `stride` above 1 is a departure, for long mazes."""

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
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(steps=20, warm_steps=8, temperature=0.5)
    )

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


DecisionParts = Parts[DecisionDiffuserConfig]


def init(key: Array, data: SegmentRows, *, parts: DecisionParts) -> DecisionDiffuserState:
    """The state before training."""
    width = (len(parts.spec.goal) or 1) + 1
    learned, _, control = first_weights(parts, named_keys(key, "model", "inverse"), width)
    return DecisionDiffuserState(fit_scale(data), fit_span(data), learned, control)


def update(
    key: Array, state: DecisionDiffuserState, batch: Segments, *, parts: DecisionParts
) -> tuple[DecisionDiffuserState, Metrics]:
    """One step of the denoiser, whose condition is dropped now and then, and of the inverse model."""
    keys = named_keys(key, "drop", "model", "pair", "inverse")
    (config, spec, level), scale = (parts.config, parts.spec, parts.level), state.scale
    x0 = scale.observation(batch.observation[:, jnp.array(parts.at)])
    outcome = scale.goal(batch.goal, spec) if spec.goal else scale.value(batch.value[:, :1])
    given = jax.random.bernoulli(keys["drop"], 1 - config.dropped, (x0.shape[0],))
    weight = jnp.ones((level.rows, level.channels)).at[1].set(config.next_weight)
    lesson = Lesson(x0, level.mask()[None], weight[None], flagged(outcome, given))
    return study(parts, keys, state, lesson, batch)


def guided(state: DecisionDiffuserState, goal: Array, parts: DecisionParts) -> Denoiser:
    """Of plans that lead to `goal` `[B, G]`, or to the return asked for: `D_u + w (D_c - D_u)`."""
    (config, spec, model), scale = (parts.config, parts.spec, parts.level.model), state.scale
    wish = jnp.full((goal.shape[0], 1), config.target)
    wish = scale.goal(goal, spec) if spec.goal else scale.value(state.span.inverse(wish))
    condition = flagged(wish, jnp.ones(wish.shape[0], bool))
    if config.guidance == 1.0:
        return model.denoiser(state.model, condition)
    both = jnp.concatenate([condition, jnp.zeros_like(condition)])
    return classifier_free_doubled(model.denoiser(state.model, both), config.guidance)


def plan(
    key: Array, state: DecisionDiffuserState, memory: Previous, context: Context, *, parts: DecisionParts
) -> Planned:
    """One plan given the present, for the return or the goal."""
    level, previous = parts.level, later(memory, parts.config.replan_every / parts.stride)
    denoiser = guided(state, context.goal, parts)
    x0, none, chain = draw_best(key, level, denoiser, None, level.given(context), previous, context)
    return Planned(planned(x0), plan_of(state.scale, x0, none), chain)


def _presets(task: Task) -> Mapping[str, Preset]:
    if task.horizon is None:
        target, guidance = TARGETS.get(task.name, (0.95, 1.2))
        sampling, wish = replace(presets.WARM, temperature=0.5), min(target, 1.0)
        cpu = DecisionDiffuserConfig(target=wish, guidance=guidance, model=presets.SMALL, sampling=sampling)
    else:
        cpu = DecisionDiffuserConfig(
            horizon=task.horizon,
            stride=presets.maze_rows(task)[0],
            replan_every=task.horizon // 2,
            model=presets.LARGER,
            sampling=replace(presets.COLD, temperature=0.5),
        )
    return presets.presets_of(task, cpu)


@register(
    "planner",
    "decision_diffuser",
    DecisionDiffuserConfig,
    _presets,
    title="Decision Diffuser",
    paper="arXiv 2211.15657",
    idea="denoises states given the return, free of classifiers; an inverse model acts",
    departures="standardised returns; the temperature scales the initial noise alone, which under an ODE "
    "scales every deviation from the mean; the inverse model has its own optimiser; the target is a share of "
    "the range of the dataset's discounted returns to go, while the published targets (of the presets) were "
    "tuned for returns over a fixed scale: the same number asks for another return, and 1.1 is cut to 1",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def decision_diffuser(
    config: DecisionDiffuserConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Denoises states given the present and, free of classifiers, the return; an inverse model acts.

    The network learns with the condition and without it (zeros, and a flag that says so), and a plan is
    drawn from `D_u + w (D_c - D_u)` (arXiv 2207.12598) at a low temperature, in one call of twice the
    batch a step. On tasks with goals the condition is the goal, in hindsight, instead of the return: a wish
    that steers the plan, where Diffuser prescribes the entries of its last row. The present is shown
    without noise in training and sampling (`jdp.diffusion.guidance.hold`).

    Args:
        guide: acts on the denoiser that the condition steers already.
        trace: whether decisions hold the chain out of noise.
    """
    present = replace(spec, goal=())  # the goal is a condition, and no entry of the plan
    rows, net = config.horizon // config.stride, model(config.model)
    level = Level(present, rows, 0, net, config.sampling, guide=guide, trace=trace)
    control = inverse(config.inverse, spec.action_dim, config.stride, spec.goal)
    parts = Parts(config, spec, level, control, config.stride)
    return method(parts, init, update, plan, hindsight=config.hindsight)
