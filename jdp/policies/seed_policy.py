"""SeedPolicy (Gui et al. 2026, arXiv 2603.05117): a diffusion policy with a memory of fixed size."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.errors import check_settings
from jdp.learning import averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past
from jdp.learning.observations import observation_affine
from jdp.networks.gated_memory import gated_memory
from jdp.policies import actions, chunks, relabelled
from jdp.policies.chunks import ChunkCarry, CloneState, LongChunkConfig
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Decision,
    Guide,
    Method,
    Metrics,
    Network,
    Params,
    Policy,
    Segments,
    Spec,
    named_keys,
)


@dataclass(frozen=True)
class SeedPolicyConfig(LongChunkConfig):
    """Settings of SeedPolicy; sizes of the memory are ours."""

    history: int = 32
    """Observations in a row that the memory learns from; in an episode it goes on for ever."""
    features: int = 256
    """Width of the denoiser."""
    memory: int = 64
    """Width of the memory's slots."""
    slots: int = 8
    """How many there are."""
    tokens: int = 4
    """Parts of an observation that attend."""
    grad_norm: float | None = 1.0
    """Largest norm of a gradient; it comes through all steps of the history."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"slots": (self.slots, 1, 1 << 10), "tokens": (self.tokens, 1, 1 << 10)}
        check_settings("SeedPolicyConfig", memory=(self.memory, 4, 1 << 12), **sizes)

    @property
    def width(self) -> int:
        """Of the memory's slots, as its four heads divide it."""
        return 4 * (self.memory // 4)

    def remembering(self) -> Network:
        """One step of the memory."""
        return gated_memory(self.width, self.slots, self.tokens, self.precision)

    def empty(self, batch: int) -> Array:
        """The memory before an episode begins."""
        return jnp.zeros((batch, self.slots, self.width))


class SeedCarry(NamedTuple):
    """What B environments remember."""

    memory: Array  # [B, slots, F]
    chunk: ChunkCarry


def _init(key: Array, rows: SegmentRows, *, config: SeedPolicyConfig, spec: Spec) -> CloneState:
    check_fits(rows.observation, rows.action, spec, "policy")
    keys, memory = named_keys(key, "memory", "denoiser"), config.empty(1)
    observation, x = jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, config.chunk * spec.action_dim))
    width = config.tokens * memory.shape[-1] + spec.observation_dim + len(spec.goal)
    params = {
        "memory": config.remembering().init(keys["memory"], memory, observation),
        "denoiser": config.network().init(keys["denoiser"], x, jnp.zeros(1), jnp.zeros((1, width))),
    }
    return CloneState(averaged.begin(config.optimiser(), params), observation_affine(rows.observation))


def remembered(params: Params, observations: Array, config: SeedPolicyConfig) -> tuple[Array, Array]:
    """Memory `[B, slots, F]` and enhanced present `[B, E]` after observations `[B, H, O]`, standardised.

    Before an episode began its first row stands: of equal rows at the front the last one alone counts, so
    that a memory is what it is in closed loop, where the first observation is seen once.
    """
    front = jnp.all(observations == observations[:, :1], axis=-1)
    front = jnp.cumprod(front.astype(jnp.int32), axis=1) > 0
    skip = jnp.concatenate([front[:, 1:], jnp.zeros_like(front[:, :1])], axis=1)  # an equal one follows

    def see(memory: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        observation, skipped = row
        after, enhanced = config.remembering().apply(params["memory"], memory, observation)
        return jnp.where(skipped[:, None, None], memory, after), enhanced

    rows = jnp.swapaxes(observations, 0, 1), jnp.swapaxes(skip, 0, 1)
    memory, enhanced = jax.lax.scan(see, config.empty(observations.shape[0]), rows)
    return memory, enhanced[-1]


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: SeedPolicyConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    keys, h, dim = named_keys(key, "level", "noise"), config.history, spec.observation_dim
    shown, chunk = chunks.example(batch, state.standardise, config, spec)
    observations, now = shown[:, : h * dim].reshape(-1, h, dim), shown[:, (h - 1) * dim :]
    sigma, keep = actions.levels(keys["level"], chunk.shape[0], config), imitated(batch, spec)

    def loss(params: Params) -> Array:
        _, enhanced = remembered(params, observations, config)
        seen = jnp.concatenate([now, enhanced], axis=-1)
        return actions.imitation_loss(keys["noise"], params["denoiser"], seen, chunk, sigma, keep, config)

    return chunks.imitate(state, loss, config)


def _start(observation: Array, *, config: SeedPolicyConfig, spec: Spec, guide: Guide | None) -> SeedCarry:
    # What came before the present is in the memory.
    carry = chunks.start(observation, config=replace(config, history=1), spec=spec, guide=guide)
    return SeedCarry(config.empty(observation.shape[0]), carry)


def _act(
    key: Array,
    state: CloneState,
    carry: SeedCarry,
    observation: Array,
    goal: Array,
    *,
    config: SeedPolicyConfig,
    spec: Spec,
    guide: Guide | None,
) -> tuple[SeedCarry, Decision]:
    params = state.actor.ema
    own = state.standardise(observation)
    memory, enhanced = config.remembering().apply(params["memory"], carry.memory, own)

    def sample(past: Past) -> Array:
        now = relabelled.condition(state.standardise, observation, goal, spec)
        seen = jnp.concatenate([now, enhanced], axis=-1)
        denoiser = actions.denoiser(params["denoiser"], seen, config)
        scale = actions.coordinates(state.standardise, config, spec)
        steered = actions.steered(denoiser, guide, past, goal, scale)
        return config.sampling().draw(key, steered, (seen.shape[0], config.chunk * spec.action_dim))

    chunk, decision = chunks.step(carry.chunk, observation, sample)
    return SeedCarry(memory, chunk), decision


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets; the plumbing is seen in a short history."""
    return presets_of(SeedPolicyConfig(), task, history=4)


@register(
    "policy",
    "seed_policy",
    SeedPolicyConfig,
    presets,
    title="SeedPolicy",
    paper="arXiv 2603.05117",
    idea="a memory of fixed size, written and read by gated attention, goes on through the episode",
    departures="observations are vectors, cut into tokens; the memory's sizes are ours",
    fit=falling_rates,
)
@lru_cache
def seed_policy(config: SeedPolicyConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """SeedPolicy; equal arguments give the same one. A step costs the same however old the episode is."""
    settings = (("config", config), ("spec", spec), ("guide", guide))
    policy = Policy(Bound(_start, settings), Bound(_act, settings))
    return Method(chunks.clone_learner(_init, _update, config, spec), policy)
