"""The mechanism of Diffusion-VLA (Wen et al. 2024, arXiv 2412.03293): a sub-task is said first, then done.

There is no language: a sub-task is one of a few tokens. Where a group of the observation says the stage of
the task, the token is the stage that the chunk ends in, and the denoiser does not see that group: it hears of
the stage by the token alone. Where none is named, tokens are k-means classes of how the observation changes
over the chunk, that is of where the chunk leads; the denoiser sees all, and a forced token steers as far as
what is seen leaves open where to go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine, fit_affine, identity
from jdp.errors import UserError, check_settings
from jdp.learning import averaged
from jdp.learning.anchors import fit_anchors, nearest, some_changes
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past
from jdp.learning.observations import observation_affine
from jdp.networks.mlp import mlp
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkCarry, Chunks, LongChunkConfig
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, mean_of
from jdp.registry import Preset, Task, register
from jdp.tasks.groups import group
from jdp.types import (
    Bound,
    Decision,
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
    where_rows,
)

FITTED = 4096  # changes that the classes are fitted to


@dataclass(frozen=True)
class DiffusionVLAConfig(LongChunkConfig):
    """Settings of Diffusion-VLA's mechanism."""

    stage: str = ""
    """Group of the observation that says the stage of the task, as one entry that counts from 0 or one-hot.
    Empty: sub-tasks are k-means classes of how the observation changes over the chunk."""
    tokens: int = 8
    """How many sub-tasks there are; a one-hot stage has as many as entries."""
    token_features: int = 256
    """Width of the two layers that predict the token."""
    token_weight: float = 1.0
    """Of the cross-entropy of the token beside the loss of the chunk."""
    temperature: float = 0.0
    """Of the choice of a token, drawn in proportion to `p^(1 / temperature)`; 0 takes the likeliest."""
    forced: int | None = None
    """The token in place of the predicted one, to play with; see `forcing`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = {"tokens": (self.tokens, 2, FITTED), "temperature": (self.temperature, 0, 1e6)}
        check_settings(type(self).__name__, **limits, chunk=(self.chunk, 2, 1 << 20))

    def count(self, spec: Spec) -> int:
        """K, how many tokens there are.

        Raises:
            UserError: if there is no such stage or token.
        """
        width = len(group(spec, self.stage)) if self.stage else 1
        found = width if width > 1 else self.tokens
        if self.forced is not None:
            check_settings(type(self).__name__, forced=(self.forced, 0, found - 1))
        return found

    def head(self, spec: Spec) -> Network:
        """Of what is seen `[B, C]` to logits `[B, K]`."""
        return mlp((self.token_features, self.token_features, self.count(spec)), activation="silu")


class VLAState(NamedTuple):
    """The denoiser and the head with their averaged weights, and what tokens are."""

    actor: Averaged  # of {"denoiser", "head"}
    standardise: Affine  # of observations, [O]
    change: Affine  # of how they change over a chunk, [O]
    classes: Array  # [K, O], standardised changes; [0, O] where a stage is named


class VLACarry(NamedTuple):
    """What B environments remember."""

    chunk: ChunkCarry
    token: Array  # [B] int32, of the chunk that is executed


def _init(key: Array, rows: SegmentRows, *, config: DiffusionVLAConfig, spec: Spec) -> VLAState:
    keys, count = named_keys(key, "denoiser", "head", "rows", "classes"), config.count(spec)
    check_fits(rows.observation, rows.action, spec, "policy")
    seen = jnp.zeros((1, config.history * spec.observation_dim + len(spec.goal)))
    x, told = jnp.zeros((1, config.chunk * spec.action_dim)), jnp.zeros((1, count))
    params = {
        "denoiser": config.network().init(keys["denoiser"], x, jnp.zeros(1), (seen, told)),
        "head": config.head(spec).init(keys["head"], seen[0]),
    }
    change, classes = identity(spec.observation_dim), jnp.zeros((0, spec.observation_dim))
    if not config.stage:
        changes = some_changes(keys["rows"], rows, config.chunk, FITTED)
        change = fit_affine(changes)
        classes = fit_anchors(keys["classes"], change(changes), count)
    standardise = observation_affine(rows.observation)
    return VLAState(averaged.begin(config.optimiser(), params), standardise, change, classes)


def labels(state: VLAState, observations: Array, config: DiffusionVLAConfig, spec: Spec) -> Array:
    """`[B]` int32, the tokens of observations `[B, T, O]` from the first row of a chunk to its last."""
    last = observations[:, -1]
    if not config.stage:
        return nearest(state.change(last - observations[:, 0]), state.classes)
    stage = last[:, jnp.array(group(spec, config.stage))]
    if stage.shape[1] > 1:
        return jnp.argmax(stage, axis=1).astype(jnp.int32)
    return jnp.clip(jnp.round(stage[:, 0]), 0, config.tokens - 1).astype(jnp.int32)


def told(seen: Array, token: Array, config: DiffusionVLAConfig, spec: Spec) -> tuple[Array, Array]:
    """What the denoiser is shown and told: `seen` `[B, C]` without the stage, and one-hot tokens `[B, K]`."""
    if config.stage:
        entries = jnp.array(group(spec, config.stage))
        at = jnp.arange(config.history)[:, None] * spec.observation_dim + entries[None]
        seen = seen.at[:, at.reshape(-1)].set(0.0)
    return seen, jax.nn.one_hot(token, config.count(spec))


def _update(
    key: Array, state: VLAState, batch: Segments, *, config: DiffusionVLAConfig, spec: Spec
) -> tuple[VLAState, Metrics]:
    keys = named_keys(key, "level", "noise")
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    token, keep = (
        labels(state, batch.observation[:, config.history - 1 :], config, spec),
        imitated(batch, spec),
    )
    shown, sigma = told(seen, token, config, spec), actions.levels(keys["level"], chunk.shape[0], config)

    def loss(params: Params) -> tuple[Array, Metrics]:
        own, said = params["denoiser"], config.head(spec).apply(params["head"], seen)
        found = actions.imitation_loss(keys["noise"], own, shown, chunk, sigma, keep, config)
        wrong = mean_of(optax.softmax_cross_entropy_with_integer_labels(said, token), keep)
        right = mean_of((jnp.argmax(said, axis=1) == token).astype(jnp.float32), keep)
        total = found + config.token_weight * wrong
        return total, {"loss": total, "chunk_loss": found, "token_loss": wrong, "token_accuracy": right}

    actor, metrics = averaged.descend(config.optimiser(), state.actor, loss, config.ema)
    return state._replace(actor=actor), metrics


def chosen(key: Array, state: VLAState, seen: Array, config: DiffusionVLAConfig, spec: Spec) -> Array:
    """`[B]` int32, the tokens for what is seen `[B, C]`, or the forced one; consumes the key."""
    if config.forced is not None:
        return jnp.full(seen.shape[0], config.forced, jnp.int32)
    said = config.head(spec).apply(state.actor.ema["head"], seen)
    if config.temperature > 0:
        return jax.random.categorical(key, jax.nn.log_softmax(said) / config.temperature).astype(jnp.int32)
    return jnp.argmax(said, axis=1).astype(jnp.int32)


def _denoiser(params: Params, shown: tuple[Array, Array], *, config: DiffusionVLAConfig) -> Denoiser:
    return actions.denoiser(params["denoiser"], shown, config)


def _start(
    observation: Array, *, config: DiffusionVLAConfig, spec: Spec, guide: Guide | None, kept: int | None
) -> VLACarry:
    begun = chunks.start(observation, config=config, spec=spec, guide=guide, kept=kept)
    return VLACarry(begun, jnp.zeros(observation.shape[0], jnp.int32))


def _act(
    key: Array, state: VLAState, carry: VLACarry, observation: Array, goal: Array, *, parts: Chunks
) -> tuple[VLACarry, Decision]:
    config, spec = cast(DiffusionVLAConfig, parts.config), parts.spec

    def sample(past: Past) -> tuple[Array, Array]:
        keys, seen = named_keys(key, "token", "draw"), parts.shown(state, past, goal)
        token = chosen(keys["token"], state, seen, config, spec)
        denoiser = parts.steered(state, past, goal, told(seen, token, config, spec))
        return parts.decoded(parts.draw(keys["draw"], denoiser, observation.shape[0])), token

    chunk, decision, token = chunks.telling_step(carry.chunk, observation, sample)
    return VLACarry(chunk, where_rows(decision.decided, token, carry.token)), decision


def forcing(policy: Policy, token: int | None) -> Policy:
    """`policy`, a diffusion_vla's, whose every chunk is of the sub-task `token`; None: of the predicted one.

    Raises:
        UserError: for other policies, and if there is no such token.
    """
    if not (isinstance(policy.act, Bound) and policy.act.function is _act):
        raise UserError("forcing is of sub-tasks, which this policy does not know: give a diffusion_vla")
    parts: Chunks = dict(policy.act.settings)["parts"]
    config = replace(cast(DiffusionVLAConfig, parts.config), forced=token)
    return diffusion_vla(config, parts.spec, guide=parts.guide).policy


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(DiffusionVLAConfig(), task)


@register(
    "policy",
    "diffusion_vla",
    DiffusionVLAConfig,
    presets,
    title="Diffusion-VLA",
    paper="arXiv 2412.03293",
    idea="says its sub-task first, as a token that FiLM tells the denoiser of the chunk: mechanism only",
    departures="no language and no pictures: one token of a few, from a stage that the observation says or "
    "k-means of where the chunk leads, predicted by an MLP; an MLP of the flat chunk",
    fit=falling_rates,
)
@lru_cache
def diffusion_vla(config: DiffusionVLAConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """The mechanism of Diffusion-VLA as a policy; equal arguments give the same one.

    Raises:
        UserError: if the observation has no such stage, or there is no such token to force.
    """
    config.count(spec)
    acting = Chunks(Bound(_denoiser, (("config", config),)), config, spec, guide).policy(_act)
    begin = Bound(_start, cast(Bound, acting.init).settings)
    return Method(chunks.clone_learner(_init, _update, config, spec), acting._replace(init=begin))
