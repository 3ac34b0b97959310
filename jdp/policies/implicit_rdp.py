"""ImplicitRDP (arXiv 2512.10946): a causal network draws a chunk again at every step, of the same noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.errors import UserError, check_settings
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past, history_of, no_past, observe
from jdp.learning.observations import observation_affine
from jdp.networks import from_module
from jdp.networks.causal_chunk import CausalChunk
from jdp.networks.flat import flat
from jdp.networks.layers import dtype_of
from jdp.policies import actions, chunks
from jdp.policies.chunks import CloneState
from jdp.policies.presets import presets_of
from jdp.policies.slow_fast import SlowFastConfig, channel, channel_width, lesson
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
    where_rows,
)

CONSISTENT = ("euler", "heun", "dpmpp_2m")  # samplers that add no noise: equal starts end alike


@dataclass(frozen=True)
class ImplicitRDPConfig(SlowFastConfig):
    """Settings of ImplicitRDP. Every step costs `sampling_steps` network calls.

    Action t of a chunk depends on the fast channel up to t, and the noise that the chunk is drawn from stays
    until the chunk is executed. So what was executed is what is drawn again, and the rest is drawn for the
    newest of the channel, of which the last entry stands for those that have not come.
    """

    features: int = 256
    """Width of the tokens."""
    sampling_steps: int = 5
    """Steps of the sampler."""
    blocks: int = 3
    """Of attention."""
    heads: int = 4
    """Of attention."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sampling().check(type(self).__name__, steps="sampling_steps", samplers=CONSISTENT)
        check_settings("ImplicitRDPConfig", heads=(self.heads, 1, self.features))
        if self.features % self.heads or self.features % 2:
            raise UserError(
                f"ImplicitRDPConfig needs features ({self.features}) that are even and that its {self.heads} "
                "heads divide"
            )

    def network(self, groups: tuple[int, ...] = (0,)) -> Network:
        """Of flat chunks `[B, T * A]`; its condition: what is seen `[B, C]` and the channel `[B, T, F]`."""
        del groups
        module = CausalChunk(self.features, self.blocks, self.heads, dtype_of(self.precision))
        return flat(from_module(module), self.chunk)


class ImplicitCarry(NamedTuple):
    """What B environments remember."""

    past: Past
    begun: Past  # as it was at the first step of the chunk
    noise: Array  # [B, T * A], that the chunk is drawn from
    channel: Array  # [B, T, F], standardised; the newest entry is repeated in the place of those to come
    at: Array  # [B] int32, which action of the chunk is next


def _init(key: Array, rows: SegmentRows, *, config: ImplicitRDPConfig, spec: Spec) -> CloneState:
    seen = jnp.zeros((1, config.history * spec.observation_dim + len(spec.goal)))
    given = seen, jnp.zeros((1, config.chunk, channel_width(config, spec)))
    return chunks.begin(key, rows, given, observation_affine(rows.observation), config=config, spec=spec)


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: ImplicitRDPConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    keys, told = named_keys(key, "level", "noise"), lesson(batch, state.standardise, config, spec)
    sigma, given = actions.levels(keys["level"], told.chunk.shape[0], config), (told.seen, told.channel)

    def loss(params: Params) -> Array:
        return actions.imitation_loss(keys["noise"], params, given, told.chunk, sigma, told.keep, config)

    return chunks.imitate(state, loss, config)


def _start(
    observation: Array, *, config: ImplicitRDPConfig, spec: Spec, guide: Guide | None
) -> ImplicitCarry:
    batch, past = observation.shape[0], no_past(observation, max(config.history, history_of(guide)))
    noise = jnp.zeros((batch, config.chunk * spec.action_dim))
    nothing = jnp.zeros((batch, config.chunk, channel_width(config, spec)))
    return ImplicitCarry(past, past, noise, nothing, jnp.zeros(batch, jnp.int32))


def drawn(
    key: Array,
    state: CloneState,
    carry: ImplicitCarry,
    goal: Array,
    *,
    config: ImplicitRDPConfig,
    spec: Spec,
    guide: Guide | None,
) -> Array:
    """`[B, T, A]`, the chunk of the noise, what was seen when it began, and the channel so far.

    The key is that of samplers, and consumed; no sampler that there is to choose uses it.
    """
    own = carry.begun.history[:, -config.history :]
    given = chunks.condition(state.standardise, own, goal, spec), carry.channel
    scale, sampling = config.units(state.standardise, spec), config.sampling()
    plain, sigmas = actions.denoiser(state.actor.ema, given, config), sampling.sigmas()
    steered = actions.steered(plain, guide, carry.begun, goal, scale)
    x0 = sampling.function()(steered, sigmas[0] * carry.noise, sigmas, key=key)
    return x0.reshape(x0.shape[0], config.chunk, spec.action_dim)


def observed(
    key: Array,
    state: CloneState,
    carry: ImplicitCarry,
    observation: Array,
    *,
    config: ImplicitRDPConfig,
    spec: Spec,
) -> ImplicitCarry:
    """`carry` once `observation` `[B, O]` is there, new noise where a chunk begins; the key is consumed."""
    past, due = observe(carry.past, observation), carry.at == 0
    fresh = jax.random.normal(key, carry.noise.shape)
    begun, noise = where_rows(due, (past, fresh), (carry.begun, carry.noise))
    now = channel(state.standardise, observation, config, spec)
    to_come = jnp.arange(config.chunk)[None] >= carry.at[:, None]
    known = jnp.where(to_come[..., None], now[:, None], carry.channel)
    return ImplicitCarry(past, begun, noise, known, carry.at)


def _act(
    key: Array,
    state: CloneState,
    carry: ImplicitCarry,
    observation: Array,
    goal: Array,
    *,
    config: ImplicitRDPConfig,
    spec: Spec,
    guide: Guide | None,
) -> tuple[ImplicitCarry, Decision]:
    keys = named_keys(key, "noise", "sampler")
    carry = observed(keys["noise"], state, carry, observation, config=config, spec=spec)
    chunk = drawn(keys["sampler"], state, carry, goal, config=config, spec=spec, guide=guide)
    action = jnp.take_along_axis(chunk, carry.at[:, None, None], axis=1)[:, 0]
    after = carry._replace(at=(carry.at + 1) % config.execute)
    return after, Decision(action, jnp.ones(action.shape[0], bool))


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(ImplicitRDPConfig(), task, blocks=1)


@register(
    "policy",
    "implicit_rdp",
    ImplicitRDPConfig,
    presets,
    title="ImplicitRDP",
    paper="arXiv 2512.10946",
    idea="one causal network: action t sees a fast channel up to t, and the chunk is drawn again at every "
    "step out of the same noise",
    departures="the channel's past is read by causal attention alone, no recurrent network before it; no "
    "virtual target, which needs a stiffness; observations are vectors, the fast group is also part of what "
    "is seen when a chunk begins, and EDM denoises",
    fit=falling_rates,
)
@lru_cache
def implicit_rdp(config: ImplicitRDPConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """ImplicitRDP; equal arguments give the same one.

    A guide sees the whole chunk, so with one what was executed may change when it is drawn again.

    Raises:
        UserError: if the observation has no group `config.fast`.
    """
    channel_width(config, spec)
    settings = (("config", config), ("guide", guide), ("spec", spec))
    policy = Policy(Bound(_start, settings), Bound(_act, settings))
    return Method(chunks.clone_learner(_init, _update, config, spec), policy)
