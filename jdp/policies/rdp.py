"""Reactive Diffusion Policy (Xue et al. 2025, arXiv 2503.02881): a chunk's latent, decoded step by step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine, identity
from jdp.learning import averaged, tokenizers
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past
from jdp.learning.observations import observation_affine
from jdp.learning.scale import clip_action
from jdp.learning.tokenizers import TokenizerConfig
from jdp.networks.conditional_mlp import conditioned
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkCarry
from jdp.policies.presets import presets_of
from jdp.policies.slow_fast import SlowFastConfig, channel, channel_width, lesson
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Decision,
    Denoiser,
    Method,
    Metrics,
    Params,
    Policy,
    Segments,
    Spec,
    named_keys,
    where_rows,
)


@dataclass(frozen=True)
class RDPConfig(SlowFastConfig):
    """Settings of Reactive Diffusion Policy. A step between two chunks costs one step of the decoder."""

    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    sigma_data: float = 1.0
    """Standard deviation of latents, which are standardised."""
    sigma_min: float = 0.04
    """Last positive level of the Karras schedule."""
    sigma_max: float = 10.0
    """First level of the Karras schedule."""
    p_mean: float = -0.5
    """Mean of ln sigma in training."""


class RDPState(NamedTuple):
    """Encoder, decoder and denoiser with their averaged weights."""

    actor: Averaged
    standardise: Affine  # of observations, [O]
    latents: Affine  # of the averaged encoder's, [L]


class RDPCarry(NamedTuple):
    """What B environments remember."""

    chunk: ChunkCarry  # whose queue [B, execute, L] has the standardised latent for every step it decodes
    memory: Array  # [B, M], of the decoder


def _init(key: Array, rows: SegmentRows, *, config: RDPConfig, spec: Spec) -> RDPState:
    check_fits(rows.observation, rows.action, spec, "policy")
    keys, latent = named_keys(key, "tokenizer", "denoiser"), jnp.zeros((1, config.tokenizer.latent))
    chunk = jnp.zeros((1, config.chunk, spec.action_dim))
    seen = jnp.zeros((1, config.history * spec.observation_dim + len(spec.goal)))
    along = jnp.zeros((1, config.chunk, channel_width(config, spec)))
    params = {
        **tokenizers.first_params(keys["tokenizer"], chunk, along, config.tokenizer),
        "denoiser": config.network().init(keys["denoiser"], latent, jnp.zeros(1), seen),
    }
    actor = averaged.begin(config.optimiser(), params)
    return RDPState(actor, observation_affine(rows.observation), identity(config.tokenizer.latent))


def _update(
    key: Array, state: RDPState, batch: Segments, *, config: RDPConfig, spec: Spec
) -> tuple[RDPState, Metrics]:
    keys = named_keys(key, "tokenizer", "level", "noise")
    told = lesson(batch, state.standardise, config, spec)
    chunk = told.chunk.reshape(-1, config.chunk, spec.action_dim)
    # What is denoised are latents of the averaged encoder, for the averaged decoder acts.
    mean, _ = tokenizers.posterior(state.actor.ema, chunk, config.tokenizer)
    latents = tokenizers.moved(state.latents, mean, 1 - averaged.ema_decay(config.ema, state.actor.step))
    x0, sigma = latents(mean), actions.levels(keys["level"], mean.shape[0], config)

    def loss(params: Params) -> tuple[Array, Metrics]:
        """Both stages at once: no weight is in both terms."""
        own, metrics = tokenizers.loss(keys["tokenizer"], params, chunk, told.channel, config.tokenizer)
        bc = actions.imitation_loss(
            keys["noise"], params["denoiser"], told.seen, x0, sigma, told.keep, config
        )
        return own + bc, {"bc_loss": bc, **metrics}

    actor, metrics = averaged.descend(config.optimiser(), state.actor, loss, config.ema)
    return RDPState(actor, state.standardise, latents), metrics


def denoiser(params: Params, seen: Array, config: RDPConfig) -> Denoiser:
    """Of standardised latents `[B, L]`, given conditions `[B, C]`."""
    return config.trains().denoiser(conditioned(config.network().apply), (params["denoiser"], seen))


def _start(observation: Array, *, config: RDPConfig, spec: Spec) -> RDPCarry:
    batch, begun = observation.shape[0], chunks.start(observation, config=config, spec=spec)
    queue = jnp.zeros((batch, config.execute, config.tokenizer.latent))
    return RDPCarry(begun._replace(queue=queue), config.tokenizer.decoding(spec.action_dim).begin(batch))


def _act(
    key: Array,
    state: RDPState,
    carry: RDPCarry,
    observation: Array,
    goal: Array,
    *,
    config: RDPConfig,
    spec: Spec,
) -> tuple[RDPCarry, Decision]:
    params, rows = state.actor.ema, observation.shape[0]

    def sample(past: Past) -> Array:
        own = denoiser(params, chunks.condition(state.standardise, past.history, goal, spec), config)
        drawn = config.sampling().draw(key, own, (rows, config.tokenizer.latent))
        return jnp.repeat(drawn[:, None], config.execute, axis=1)

    chunk, held = chunks.step(carry.chunk, observation, sample)
    decoder = config.tokenizer.decoding(spec.action_dim)
    memory = where_rows(held.decided, decoder.begin(rows), carry.memory)
    now = channel(state.standardise, observation, config, spec)
    shown = jnp.concatenate([state.latents.inverse(held.action), now], axis=-1)
    memory, action = decoder.step(params["decoder"], memory, shown)
    return RDPCarry(chunk, memory), Decision(clip_action(action), held.decided)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(RDPConfig(), task)


@register(
    "policy",
    "rdp",
    RDPConfig,
    presets,
    title="Reactive Diffusion Policy",
    paper="arXiv 2503.02881",
    idea="a latent of a chunk is drawn rarely; a recurrent decoder makes actions of it and of a fast channel",
    departures="both stages learn at once, the denoiser latents of the averaged encoder; an MLP encodes, "
    "observations are vectors, and EDM denoises",
    fit=falling_rates,
)
@lru_cache
def rdp(config: RDPConfig, spec: Spec) -> Method:
    """Reactive Diffusion Policy; equal arguments give the same one. What is denoised no guide understands.

    Raises:
        UserError: if the observation has no group `config.fast`.
    """
    channel_width(config, spec)
    settings = (("config", config), ("spec", spec))
    policy = Policy(Bound(_start, settings), Bound(_act, settings))
    return Method(chunks.clone_learner(_init, _update, config, spec), policy)
