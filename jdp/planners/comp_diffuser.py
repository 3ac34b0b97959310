"""CompDiffuser (Luo, Mishra, Du and Xu 2025, arXiv 2503.05153): long plans of short chunks that overlap.

Trained on short pieces alone, it joins them to plans that no episode of the data holds. A longer file: chunks
are learned, joint plans drawn, and the settings of both stand here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp import planners
from jdp.data.segments import SegmentRows
from jdp.diffusion import overlapping
from jdp.diffusion.guidance import classifier_free
from jdp.errors import UserError, check_settings
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.scale import Scale, fit_scale
from jdp.planners import presets
from jdp.planners.parts import row_offsets
from jdp.planners.trajectory import Previous, SamplingConfig
from jdp.registry import Preset, Task, register
from jdp.types import Context, Denoiser, Guide, Method, Metrics, Segments, Spec, bind, named_keys


@dataclass(frozen=True)
class CompDiffuserConfig(planners.PlannerConfig):
    """Settings of CompDiffuser; `horizon` is the steps of a chunk."""

    segments: int = 3
    """Chunks of a plan, which all goals share: as many as the way to the farthest takes."""
    overlap: int = 12
    """Steps that two neighbours share (a multiple of `stride`), at most half a chunk."""
    schedule: Literal["parallel", "autoregressive"] = "parallel"
    """parallel: all chunks go down the levels together. autoregressive: one after the other at every level;
    each sees the one before it a level further on. Twice the network calls."""
    overlaps: Literal["blended", "free"] = "blended"
    """blended: two neighbours denoise what they share to one blend at every level. free: the paper's, which
    blends at the end only."""
    guidance: float = 1.0
    """How far chunks depart from what they would be without neighbours: 1 as they learned, 2 in the paper;
    other values than 1 take two network calls."""
    candidates: int = 1
    """Plans drawn at a decision; the one whose longest step from row to row is the shortest is followed."""
    drop: float = 0.2
    """Share of the sides of the pieces learned from that are told nothing; of the others `given` an end."""
    given: float = 0.5
    """Share of the sides that are told the state (to the right: goal) that the piece ends at, not a copy."""
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig("dpmpp_2m_sde", steps=20, warm_steps=0)
    )
    """With noise on the way, as in the paper (DDIM of eta 1): without it chunks that disagree stay so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"drop": (self.drop, 0, 1), "given": (self.given, 0, 1)}
        check_settings("CompDiffuserConfig", **limits, segments=(self.segments, 1, 1000))
        if not self.stride <= self.overlap <= self.horizon // 2 or self.overlap % self.stride:
            raise UserError(
                f"an overlap of {self.overlap} steps is not one or more rows of {self.stride} within half a "
                f"chunk of {self.horizon}: choose a multiple of the stride up to {self.horizon // 2}"
            )
        if self.sampling.warm_steps:
            raise UserError("chunks are drawn from nothing: set sampling.warm_steps to 0")

    @property
    def span(self) -> int:
        """Steps of a plan."""
        return self.segments * (self.horizon - self.overlap) + self.overlap


class CompDiffuserState(NamedTuple):
    """What CompDiffuser learned."""

    scale: Scale
    model: Averaged  # of chunks
    inverse: Averaged


@dataclass(frozen=True, kw_only=True)
class CompDiffuserParts(planners.Parts[CompDiffuserConfig]):
    """`level` is of joint plans: the rows of all chunks, one after the other."""

    chunk: planners.Level  # of the pieces that are learned, `[T, 2 O]`: beside a row the neighbour's copy

    @property
    def offsets(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of chunks."""
        return row_offsets(self.config.horizon, self.stride)

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, K)`: how many chunks make a joint plan, and the rows that two of them share."""
        return self.config.segments, self.config.overlap // self.stride


def parts_of(config: CompDiffuserConfig, spec: Spec, guide: Guide | None, trace: bool) -> CompDiffuserParts:
    """The level of chunks, and that of joint plans, which the same network draws."""
    plain = planners.parts_of(config, spec, guide, trace, candidates=config.candidates)
    joint = replace(plain.level, rows=config.segments * plain.level.rows)
    chunk = replace(plain.level, extra=spec.observation_dim)
    return CompDiffuserParts(config, spec, joint, plain.inverse, plain.stride, chunk=chunk)


def init(key: Array, data: SegmentRows, *, parts: CompDiffuserParts) -> CompDiffuserState:
    """The state before training."""
    keys = named_keys(key, "model", "inverse")
    learned = planners.first_weights(replace(parts, level=parts.chunk), keys)
    return CompDiffuserState(fit_scale(data), learned[0], learned[2])


def update(
    key: Array, state: CompDiffuserState, batch: Segments, *, parts: CompDiffuserParts
) -> tuple[CompDiffuserState, Metrics]:
    """One step of the denoiser of chunks and of the inverse model."""
    keys = named_keys(key, "sides", "model", "pair", "inverse")
    found = lesson(keys["sides"], planners.encode(parts, state.scale, batch), parts)
    return planners.study(replace(parts, level=parts.chunk), keys, state, found, batch)


def lesson(key: Array, x0: Array, parts: CompDiffuserParts) -> planners.Lesson:
    """Pieces `[B, T, O]` of the data with what each side is told: nothing, an end, or a copy of its overlap.

    The copy is noised with the chunk, at its level and by noise of its own; only the chunk's error counts.
    """
    keys, (batch, rows, dim) = named_keys(key, "told", "kind"), x0.shape
    told = jax.random.bernoulli(keys["told"], 1 - parts.config.drop, (batch, 2))
    end = jax.random.bernoulli(keys["kind"], parts.config.given, (batch, 2))
    copied, given = told & ~end, told & end
    beside = overlapping.overlapping_rows(rows, parts.shape[1], copied[:, 0], copied[:, 1])
    ends = overlapping.overlapping_rows(rows, 1, given[:, 0], given[:, 1])[..., None]
    known = ends & parts.chunk.mask()[None, :, :dim]
    other = jnp.broadcast_to(beside[..., None], x0.shape)
    wide = jnp.concatenate([x0, jnp.where(other, x0, 0.0)], axis=-1)
    counts = jnp.concatenate([jnp.ones(dim), jnp.zeros(dim)])[None, None]
    return planners.Lesson(wide, jnp.concatenate([known, ~other], axis=-1), counts)


def denoiser_of(
    state: CompDiffuserState, rows: int, noise: Array | None, *, parts: CompDiffuserParts
) -> Denoiser:
    """The denoiser of `rows` joint plans."""
    config, shape = parts.config, parts.shape
    own = parts.level.model.denoiser(state.model, jnp.zeros((rows * config.segments, 0)))
    joint = overlapping.composed(own, *shape, noise=noise)
    if config.guidance != 1:
        joint = classifier_free(joint, overlapping.composed(own, *shape, alone=True), config.guidance)
    return joint if config.overlaps == "free" else overlapping.agreeing(joint, *shape)


def _smoothness(x0: Array, sigma: Array, *, shape: tuple[int, int]) -> Array:
    """`[B]`, minus the longest step from row to row: chunks that do not meet jump."""
    del sigma
    steps = jnp.diff(overlapping.merged(x0, *shape), axis=1)
    return -jnp.sqrt(jnp.max(jnp.sum(jnp.square(steps), axis=-1), axis=1))


def plan(
    key: Array, state: CompDiffuserState, memory: Previous, context: Context, *, parts: CompDiffuserParts
) -> planners.Planned:
    """Chunks from the present to the goal, denoised together and merged; the smoothest of the candidates."""
    keys, level, config = named_keys(key, "draw", "copies"), parts.level, parts.config
    rows, turns = context.observation.shape[0] * level.candidates, config.schedule == "autoregressive"
    noise, schedule = None, None
    if turns:
        noise = jax.random.normal(keys["copies"], (2, rows, level.rows, level.channels))
        schedule = planners.plan_schedule(level.sampling, level.model.formulation)
        schedule = overlapping.in_turns(schedule, config.segments, parts.chunk.rows)
    own = denoiser_of(state, rows, noise, parts=parts), bind(_smoothness, shape=parts.shape)
    drawn = planners.draw(keys["draw"], level, own, level.given(context), memory, context, schedule)
    if turns and drawn.chain is not None:  # a state for each level of the last chunk
        at = 2 * jnp.arange(level.sampling.steps + 1) + config.segments - 2
        drawn = drawn._replace(chain=drawn.chain[jnp.maximum(at, 0)])
    whole = drawn._replace(x0=overlapping.merged(drawn.x0, *parts.shape))
    made = planners.as_planned(state.scale, whole, drawn.score)
    return made._replace(memory=planners.planned(drawn.x0))


SAMPLING = replace(presets.COLD, sampler="dpmpp_2m_sde", steps=20)


def settings(task: Task) -> CompDiffuserConfig:
    """Those of the cpu preset: chunks of 16 rows, as many as span the way through the maze."""
    if task.way is None:
        small = {"segments": 2, "replan_every": 4, "model": presets.SMALL}
        return CompDiffuserConfig(horizon=32, stride=4, overlap=12, sampling=SAMPLING, **small)
    followed: dict[str, Any] = presets.by_waypoints(task)
    own = followed if task.stays else {"stride": followed["stride"]}
    own |= {"horizon": 16 * own["stride"], "overlap": 6 * own["stride"], "replan_every": 0}
    own["segments"] = max(2, -(-(task.way - own["overlap"]) // (own["horizon"] - own["overlap"])))
    return CompDiffuserConfig(**presets.in_maze(task, candidates=8, **own | {"sampling": SAMPLING}))


def _presets(task: Task) -> Mapping[str, Preset]:
    cpu = settings(task)
    paper = replace(presets.published(cpu), overlaps="free", guidance=2.0, schedule="autoregressive")
    sampling = SamplingConfig("ddpm", steps=50, warm_steps=0, sigma_max=80.0)
    many = 40 if task.horizon is not None else 1
    return presets.presets_of(task, cpu, replace(paper, sampling=sampling, candidates=many))


@register(
    "planner",
    "comp_diffuser",
    CompDiffuserConfig,
    _presets,
    title="CompDiffuser",
    paper="arXiv 2503.05153",
    idea="denoises short chunks that overlap together, to long plans that no episode holds",
    departures="a chunk sees its neighbours' overlaps beside its own rows, not through encoders; overlaps "
    "are blended at every level (`overlaps`, free is the paper's) and linearly; in turn, a copy that is a "
    "level ahead is noised again; of many plans the one of the shortest longest step is followed, not the "
    "one whose overlaps differ least; one plan an episode; no guidance by default",
    fit=falling_rates,
)
@lru_cache(maxsize=64)
def comp_diffuser(
    config: CompDiffuserConfig, spec: Spec, *, guide: Guide | None = None, trace: bool = False
) -> Method:
    """Denoises `segments` chunks of states together, each given its neighbours' noised overlaps.

    The first chunk begins at the present, the last ends at the goal; without goals it ends anywhere. Data
    need hold pieces of a chunk's length only, any two that meet in an overlap. The merged plan is tracked;
    `Plan.value` is minus its longest step from row to row, in standard deviations of the observation's
    entries. A guide acts on the rows of all chunks one after the other, overlaps twice, and so does the
    chain that is traced (in turn: at the levels of the last chunk).
    """
    parts = parts_of(config, spec, guide, trace)
    return planners.method(parts, init, update, plan, lengths=(config.span // parts.stride, 0, 0))
