"""AlignDiff (Dong et al. 2024, arXiv 2310.02054): plans whose attributes are as strong as is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp import planners
from jdp.data.segments import SegmentRows
from jdp.diffusion.guidance.classifier_free import classifier_free_doubled
from jdp.errors import UserError, check_settings
from jdp.learning import attributes
from jdp.learning.attributes import StrengthConfig, Strengths
from jdp.learning.averaged import Averaged
from jdp.learning.candidates import check_candidates
from jdp.learning.fitting import falling_rates
from jdp.learning.scale import Scale, fit_scale
from jdp.planners import presets
from jdp.planners.trajectory import Previous
from jdp.registry import Preset, Task, register
from jdp.types import Context, Denoiser, Guide, Method, Metrics, Segments, Spec, named_keys

FREE = -1.0  # a wish that leaves its attribute to the data


@dataclass(frozen=True)
class AlignDiffConfig(planners.PlannerConfig):
    """Settings of AlignDiff."""

    attributes: tuple[str, ...] = ("speed",)
    """speed; of MuJoCo's bodies height, of mazes clearance too; entries of the observation, by number."""
    wish: tuple[float, ...] = (0.8,)
    """How strong each attribute shall be: the share of the dataset's segments that are weaker, from 0 to 1;
    -1 leaves it free."""
    candidates: int = 16
    """Plans drawn at a decision; the one that comes nearest to the wish is followed."""
    guidance: float = 1.5
    """Weight w of the condition; 1: the conditional model, above: the condition is exaggerated."""
    dropped: float = 0.2
    """Share of training plans in which an attribute is not shown, of each apart."""
    strengths: StrengthConfig = field(default_factory=StrengthConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_candidates(self.candidates)
        check_settings("AlignDiffConfig", dropped=(self.dropped, 0, 1))
        if not self.attributes or len(self.wish) != len(self.attributes):
            raise UserError(
                f"AlignDiffConfig.wish is {self.wish}: give one number for each of the attributes "
                f"({', '.join(self.attributes) or 'none given'})"
            )
        for wish in self.wish:
            if wish != FREE:
                check_settings("AlignDiffConfig", wish=(wish, 0, 1))


class AlignDiffState(NamedTuple):
    """What AlignDiff learned."""

    scale: Scale
    strengths: Strengths
    model: Averaged
    inverse: Averaged


AlignParts = planners.Parts[AlignDiffConfig]


def masked(standing: Array, given: Array) -> Array:
    """`[B, 2 K]`, what the denoiser sees of strengths `[B, K]`; 0 and a flag 0 where not `given` `[B, K]`."""
    flag = given.astype(standing.dtype)
    return jnp.concatenate([flag * (2 * standing - 1), flag], axis=-1)


def init(key: Array, data: SegmentRows, *, parts: AlignParts) -> AlignDiffState:
    """The state before training."""
    keys, count = named_keys(key, "model", "inverse", "strengths"), len(parts.config.attributes)
    learned, _, control = planners.first_weights(parts, keys, 2 * count)
    own, level = parts.config.strengths, parts.level
    strengths = attributes.begin(keys["strengths"], own, level.rows, parts.spec.observation_dim, count)
    return AlignDiffState(fit_scale(data), strengths, learned, control)


def update(
    key: Array, state: AlignDiffState, batch: Segments, *, parts: AlignParts
) -> tuple[AlignDiffState, Metrics]:
    """One step of the strengths, and of the denoiser that is shown them, each attribute now and then."""
    keys = named_keys(key, "drop", "model", "pair", "inverse", "strengths")
    config, scale, level = parts.config, state.scale, parts.level
    x0 = planners.encode(parts, scale, batch)
    rows = batch.observation[:, jnp.array(parts.offsets[1])]
    own = [attributes.labeller(name, parts.spec)(rows) for name in config.attributes]
    labels = jnp.stack(own, axis=1)
    strengths, told = attributes.update(keys["strengths"], state.strengths, x0, labels, config.strengths)
    standing = attributes.standing(strengths, x0, config.strengths)
    given = jax.random.bernoulli(keys["drop"], 1 - config.dropped, standing.shape)
    lesson = planners.Lesson(x0, level.mask()[None], condition=masked(standing, given))
    state, metrics = planners.study(parts, keys, state._replace(strengths=strengths), lesson, batch)
    return state, {**metrics, **told}


def wished(config: AlignDiffConfig, rows: int) -> tuple[Array, Array]:
    """The wish and which attributes it asks for, `[rows, K]` each."""
    wish = jnp.broadcast_to(jnp.array(config.wish)[None], (rows, len(config.wish)))
    return wish, wish != FREE


def guided(state: AlignDiffState, rows: int, parts: AlignParts) -> Denoiser:
    """Of `rows` plans that behave as is wished: `D_u + w (D_c - D_u)`, in D_u all attributes are masked."""
    config, model = parts.config, parts.level.model
    condition = masked(*wished(config, rows))
    if config.guidance == 1.0:
        return model.denoiser(state.model, condition)
    both = jnp.concatenate([condition, jnp.zeros_like(condition)])
    return classifier_free_doubled(model.denoiser(state.model, both), config.guidance)


def nearness(state: AlignDiffState, x0: Array, parts: AlignParts) -> Array:
    """`[N]`, minus the squared distance of plans `[N, T, O]` to the wish, over what it asks for."""
    wish, asked = wished(parts.config, x0.shape[0])
    standing = attributes.standing(state.strengths, x0, parts.config.strengths)
    return -jnp.sum(jnp.where(asked, jnp.square(standing - wish), 0.0), axis=-1)


def plan(
    key: Array, state: AlignDiffState, memory: Previous, context: Context, *, parts: AlignParts
) -> planners.Planned:
    """Of the candidates the plan that comes nearest to the wish."""
    level, rows = parts.level, context.observation.shape[0]
    own = (guided(state, rows * level.candidates, parts), None)
    chain, _ = planners.draw_candidates(key, level, own, level.given(context), parts.later(memory), context)
    score = nearness(state, chain[-1] if level.trace else chain, parts)
    drawn = planners.best(level, chain, score)
    return planners.as_planned(state.scale, drawn, drawn.score)


def _presets(task: Task) -> Mapping[str, Preset]:
    if task.horizon is None:
        cpu = AlignDiffConfig(model=presets.SMALL, sampling=presets.COLD)
    else:
        cpu = AlignDiffConfig(**presets.in_maze(task, candidates=8))
    return presets.presets_of(task, cpu, replace(presets.published(cpu), candidates=64))


@register(
    "planner",
    "align_diff",
    AlignDiffConfig,
    _presets,
    title="AlignDiff",
    paper="arXiv 2310.02054",
    idea="learns from preferences how strong attributes are; plans are as fast, or as high, as is asked",
    departures="built-in labellers tell preferences; strengths are learned beside the denoiser and shown as "
    "their standing in the dataset, not in 100 bins; plans hold states; a residual U-Net",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def align_diff(
    config: AlignDiffConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Denoises states given the present and how strong some attributes shall be; an inverse model acts.

    The wish is a setting, so that one training serves all wishes: `evaluate.py` and `load_run` take the same
    state with another one. An attribute that is left free is masked, as in training.

    Raises:
        UserError: for an attribute that the task has not.
    """
    for name in config.attributes:
        attributes.labeller(name, spec)
    parts = planners.parts_of(config, spec, guide, trace, candidates=config.candidates)
    return planners.method(parts, init, update, plan)
