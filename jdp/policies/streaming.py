"""Streaming diffusion policy (Høeg et al. 2024, arXiv 2406.04806): actions, the later the noisier."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.schedules import karras_level, rolling
from jdp.errors import UserError, check_settings
from jdp.learning.fitting import falling_rates
from jdp.networks.conditional_mlp import conditional_mlp
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkConfig, Chunks, CloneState
from jdp.policies.continued import continued
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Denoiser,
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
class StreamingConfig(ChunkConfig):
    """Settings of streaming diffusion policy: a buffer of 16 actions, of which 8 come clean at a time.

    The buffer has `chunk / execute` parts whose levels rise; `sampling_steps` over that many network calls
    bring each part to where the one before it was, and the first one to the actions that are executed. Noise
    of a low `sigma_max` that enters remembers nothing of what is before it, so the stream loses spread: of an
    AR(1) of std 1 and correlation .9, executed one by one of 8, 16 calls a tick from 80 give .98 and .89
    (Euler; .99 and .89 DPM-Solver++), from 10 .90 and .88. Executed four by four of 8 the seams tell: 5 calls
    from 80 give 1.00 and .79, for what comes clean was bound to what is gone at half of the schedule alone.
    """

    chunk: int = 16
    """Actions in the buffer."""
    execute: int = 8
    """Actions that come clean at a time, and are executed before the next ones."""
    features: int = 512
    """Width of the denoiser."""
    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    sampling_steps: int = 10
    """Levels that an action goes through from pure noise: a multiple of chunk / execute."""
    sigma_max: float = 40.0
    """Level of what enters the buffer, 80 standard deviations of actions."""
    constant: float = 0.2
    """Share of training rows that have one level; those of the others rise along the buffer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("StreamingConfig", constant=(self.constant, 0, 1))
        if self.chunk % self.execute or self.sampling_steps % self.parts:
            raise UserError(
                f"StreamingConfig: chunk is {self.chunk}, execute {self.execute}, sampling_steps "
                f"{self.sampling_steps}: make chunk a multiple of execute, sampling_steps one of their ratio"
            )

    @property
    def parts(self) -> int:
        """Parts of the buffer, each with a level in common."""
        return self.chunk // self.execute

    def network(self, groups: tuple[int, ...] = (0,)) -> Network:
        """Of buffers `[B, chunk * A]`, told one level for each of the steps."""
        del groups
        steps = tuple(range(self.chunk))
        own = conditional_mlp(self.features, self.blocks, steps, self.precision)
        return own._replace(apply=Bound(_by_step, (("apply", own.apply), ("steps", self.chunk))))


def _by_step(
    params: Params, x: Array, c_noise: Array, condition: Array, *, apply: Callable[..., Array], steps: int
) -> Array:
    if c_noise.ndim > 1:  # of all entries; those of a step have one
        c_noise = c_noise.reshape(x.shape[0], steps, -1)[..., 0]
    return apply(params, x, c_noise, condition)


def training_levels(key: Array, count: int, config: StreamingConfig) -> Array:
    """`[count, chunk]` levels: those that a buffer has on its way, or one for all; the key is consumed.

    In shares of the schedule, step `t` of part `i` has `(i + u) / parts`, with one uniform `u` a row.
    """
    keys = named_keys(key, "share", "constant")
    u = jax.random.uniform(keys["share"], (count, 1))
    part = (jnp.arange(config.chunk) // config.execute).astype(u.dtype)[None]
    constant = jax.random.bernoulli(keys["constant"], config.constant, (count, 1))
    share = jnp.where(constant, u, (part + u) / config.parts)
    return karras_level(share, config.sigma_min, config.sigma_max, config.rho)


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: StreamingConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    keys = named_keys(key, "level", "noise")
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    sigma = jnp.repeat(training_levels(keys["level"], len(chunk), config), spec.action_dim, axis=1)
    keep = imitated(batch, spec)

    def loss(params: Params) -> Array:
        return actions.imitation_loss(keys["noise"], params, seen, chunk, sigma, keep, config)

    return chunks.imitate(state, loss, config)


def _levels(parts: Chunks) -> Array:
    """`[k + 1, 1, chunk * A]`, of the k network calls after which the first part is clean."""
    config: Any = parts.config
    rows = rolling(config.sampling().sigmas(), config.parts)
    return jnp.repeat(rows, config.execute * parts.spec.action_dim, axis=2)


def _first(key: Array, denoiser: Denoiser, rows: int, parts: Chunks) -> Array:
    """A whole draw, noised to the levels at which the first part has come clean."""
    keys = named_keys(key, "draw", "noise")
    clean = parts.draw(keys["draw"], denoiser, rows)
    return clean + _levels(parts)[-1] * jax.random.normal(keys["noise"], clean.shape)


def _following(key: Array, denoiser: Denoiser, before: Array, parts: Chunks) -> Array:
    """The buffer, with noise in the places of what was executed, until its first part is clean."""
    keys, sigmas, x = named_keys(key, "noise", "sampler"), _levels(parts), before.reshape(before.shape[0], -1)
    noise = sigmas[0] * jax.random.normal(keys["noise"], x.shape)
    enters = jnp.arange(x.shape[1]) >= x.shape[1] - parts.config.execute * parts.spec.action_dim
    x = jnp.where(enters[None], noise, x)
    return parts.config.sampling().function()(denoiser, x, sigmas, key=keys["sampler"])


def stream(parts: Chunks) -> Policy:
    """The policy of a denoiser that is told a level for each of the steps of a `StreamingConfig`."""
    return continued(parts, _following, parts.config.execute, _first)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(StreamingConfig(), task)


@register(
    "policy",
    "streaming",
    StreamingConfig,
    presets,
    title="Streaming diffusion policy",
    paper="arXiv 2406.04806",
    idea="a buffer of actions, the later the noisier: a few levels bring the next ones out clean",
    departures="one observation instead of two, an MLP of the flat buffer, EDM on 10 Karras levels instead "
    "of 100 of DDPM; an episode begins with a whole draw, noised again; the authors' buffer begins at zeros",
    fit=falling_rates,
)
@lru_cache
def streaming(config: StreamingConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """Streaming diffusion policy; equal arguments give the same one."""
    acting = Bound(actions.denoiser, (("config", config),))
    learner = chunks.clone_learner(chunks.init, _update, config, spec)
    return Method(learner, stream(Chunks(acting, config, spec, guide)))
