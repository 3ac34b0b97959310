"""Decision Diffuser (Ajay et al. 2023, arXiv 2211.15657): plans of states, given a return."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp import planners
from jdp.data.segments import Hindsight, SegmentRows
from jdp.diffusion.guidance.classifier_free import classifier_free_doubled, flagged
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.scale import Scale, Span, fit_scale, fit_span
from jdp.planners import presets
from jdp.planners.trajectory import Previous, SamplingConfig
from jdp.registry import Preset, Task, register
from jdp.types import Context, Denoiser, Guide, Method, Metrics, Segments, Spec, named_keys

# (target, guidance) on D4RL's locomotion sets, as CleanDiffuser (arXiv 2406.09509) tuned them.
TARGETS = {
    "halfcheetah": {"medium-expert": (0.95, 1.2), "medium-replay": (0.95, 1.4), "medium": (1.1, 3.2)},
    "hopper": {"medium-expert": (0.95, 1.2), "medium-replay": (0.6, 6.0), "medium": (0.7, 4.4)},
    "walker2d": {"medium-expert": (1.0, 1.2), "medium-replay": (0.75, 2.4), "medium": (0.75, 6.0)},
}


@dataclass(frozen=True)
class DecisionDiffuserConfig(planners.PlannerConfig):
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
    """How far ahead hindsight goals lie at most, in horizons. Above 1 they teach which way leads towards what
    a plan cannot reach, at the cost of fewer plans that arrive."""
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(steps=20, warm_steps=8, temperature=0.5)
    )

    @property
    def hindsight(self) -> Hindsight:
        """Later rows of the episode: a plan is shown goals that it passes, at any of its rows alike."""
        return Hindsight(later=1.0, reach=max(1, round(self.reach * self.horizon)))


class DecisionDiffuserState(NamedTuple):
    """What Decision Diffuser learned."""

    scale: Scale
    span: Span
    model: Averaged
    inverse: Averaged


DecisionParts = planners.Parts[DecisionDiffuserConfig]


def init(key: Array, data: SegmentRows, *, parts: DecisionParts) -> DecisionDiffuserState:
    """The state before training."""
    width = (len(parts.spec.goal) or 1) + 1
    learned, _, control = planners.first_weights(parts, named_keys(key, "model", "inverse"), width)
    return DecisionDiffuserState(fit_scale(data), fit_span(data), learned, control)


def update(
    key: Array, state: DecisionDiffuserState, batch: Segments, *, parts: DecisionParts
) -> tuple[DecisionDiffuserState, Metrics]:
    """One step of the denoiser, whose condition is dropped now and then, and of the inverse model."""
    keys = named_keys(key, "drop", "model", "pair", "inverse")
    (config, spec, level), scale = (parts.config, parts.spec, parts.level), state.scale
    x0 = planners.encode(parts, scale, batch)
    wish = scale.goal(batch.goal, spec) if spec.goal else scale.value(batch.value[:, :1])
    given = jax.random.bernoulli(keys["drop"], 1 - config.dropped, (x0.shape[0],))
    weight = jnp.ones((level.rows, level.channels)).at[1].set(config.next_weight)
    lesson = planners.Lesson(x0, level.mask()[None], weight[None], flagged(wish, given))
    return planners.study(parts, keys, state, lesson, batch)


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
) -> planners.Planned:
    """One plan given the present, for the return or the goal."""
    level, own = parts.level, (guided(state, context.goal, parts), None)
    drawn = planners.draw(key, level, own, level.given(context), parts.later(memory), context)
    return planners.as_planned(state.scale, drawn, drawn.score)


def _presets(task: Task) -> Mapping[str, Preset]:
    if task.horizon is None:
        body, _, data = task.name.removesuffix("-v2").partition("-")
        target, guidance = TARGETS.get(body, {}).get(data, (0.95, 1.2))
        sampling, wish = replace(presets.WARM, temperature=0.5), min(target, 1.0)
        cpu = DecisionDiffuserConfig(target=wish, guidance=guidance, model=presets.SMALL, sampling=sampling)
    else:
        sampling, every = replace(presets.COLD, temperature=0.5), 0 if task.stays else task.horizon // 2
        cpu = DecisionDiffuserConfig(**presets.in_maze(task, replan_every=every, sampling=sampling))
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
    batch a step; a guide acts on that. On tasks with goals the condition is the goal, in hindsight, instead
    of the return: a wish that steers the plan, where Diffuser prescribes the entries of its last row.
    """
    # The goal is a condition, and no entry of the plan.
    parts = planners.parts_of(config, spec, guide, trace, goal_row=False)
    return planners.method(parts, init, update, plan, hindsight=config.hindsight)
