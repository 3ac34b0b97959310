"""PAD (Guo et al. 2024, arXiv 2411.18179): what will be seen and what is done are denoised together.

Longer than other files, for it draws two parts, and learns from rows that lack one.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data import SegmentRows, together
from jdp.data.action_free import ActionShareDraw
from jdp.data.checks import check_fits
from jdp.data.normalise import Affine, fit_affine, identity
from jdp.errors import UserError, check_settings
from jdp.learning import averaged
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past
from jdp.learning.observations import observation_affine
from jdp.learning.scale import JointScale
from jdp.networks.conditional_mlp import conditioned
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkCarry, Chunks, LongChunkConfig
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, share_of
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Decision,
    Denoiser,
    Guide,
    Method,
    Metrics,
    Network,
    Params,
    Segments,
    Spec,
    bind,
    named_keys,
)
from jdp.world_models.parts import check_shares, entrywise, levels_apart


@dataclass(frozen=True)
class PADConfig(LongChunkConfig):
    """Settings of PAD: a diffusion policy of chunks beside the observations that they lead to.

    A row has no actions where its chunk has one that is NaN (`jdp.data.action_free`): its actions count in no
    loss, and the network is shown pure noise in their places, and told so (their level is `sigma_max`).
    """

    ahead: tuple[int, ...] = (1, 8)
    """Steps after which an observation is predicted, beside the actions."""
    action_weight: float = 1.0
    """Of the actions' loss, where that of the observations is 1."""
    action_share: float = 1.0
    """Share of the episodes whose actions are used; of the others the observations are."""
    tied: bool = True
    """One noise level for actions and observations; False: one for each (UWM, arXiv 2504.02792)."""
    clean: float = 0.2
    """Share of training rows in which a part is known (level 0), for each part, where levels are not tied."""
    noised: float = 0.2
    """Share of training rows in which a part is hidden (level `sigma_max`), for each part, likewise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = {"action_weight": (self.action_weight, 0, 1e6), "action_share": (self.action_share, 0, 1)}
        check_settings("PADConfig", **weights)
        check_shares(self)
        if not self.ahead or self.ahead[0] < 1 or any(b <= a for a, b in itertools.pairwise(self.ahead)):
            raise UserError(f"PADConfig.ahead is {self.ahead}: give steps from 1 on that increase, as 1 8")

    def offsets(self) -> tuple[int, ...]:
        """The history, the chunk, and the observations ahead."""
        return tuple(sorted({*super().offsets(), *self.ahead}))

    def widths(self, spec: Spec) -> tuple[int, int]:
        """Entries of the two parts: of the actions, and of the observations."""
        return self.chunk * spec.action_dim, len(self.ahead) * spec.observation_dim

    def joint(self, spec: Spec) -> Network:
        """Of both parts `[B, D]`, with a level for each, seeing a condition `[B, C]`."""
        return self.network((0, self.widths(spec)[0]))


class PADState(NamedTuple):
    """The denoiser of both parts with its averaged weights."""

    actor: Averaged
    standardise: Affine  # of observations, [O]
    change: Affine  # of their changes from the present on, [K * O]


def _init(key: Array, rows: SegmentRows, *, config: PADConfig, spec: Spec) -> PADState:
    check_fits(rows.observation, rows.action, spec, "policy")
    seen = config.history * spec.observation_dim + len(spec.goal)
    x = jnp.zeros((1, sum(config.widths(spec))))
    params = config.joint(spec).init(key, x, jnp.zeros(1), jnp.zeros((1, seen)))
    observation, now = jnp.asarray(rows.observation), jnp.asarray(rows.starts)[:, None]
    later = jnp.minimum(now + jnp.array(config.ahead)[None], jnp.asarray(rows.last)[:, None])
    change = (observation[later] - observation[now]).reshape(now.shape[0], -1)
    actor = averaged.begin(config.optimiser(), params)
    return PADState(actor, observation_affine(observation), fit_affine(change))


class Lesson(NamedTuple):
    """What a batch says."""

    seen: Array  # [B, C]
    x0: Array  # [B, D], both parts; actions that are not known are 0
    known: Array  # [B] bool, whether the row has actions
    keep: Array  # [B] bool, whether it is imitated


def lesson(state: PADState, batch: Segments, config: PADConfig, spec: Spec) -> Lesson:
    """Changes of the observation get the standard deviation of actions: one level says as much of both."""
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    known = ~jnp.any(jnp.isnan(chunk), axis=1)
    chunk = jnp.where(known[:, None], chunk, 0.0)
    h, later = config.history, np.array([config.offsets().index(step) for step in config.ahead])
    change = batch.observation[:, later] - batch.observation[:, h - 1 : h]
    change = config.sigma_data * state.change(change.reshape(change.shape[0], -1))
    return Lesson(seen, jnp.concatenate([chunk, change], axis=-1), known, imitated(batch, spec))


def levels(key: Array, known: Array, config: PADConfig, spec: Spec) -> Array:
    """`[B, D]` levels of training; actions that are not `known` `[B]` are hidden. The key is consumed."""
    count = known.shape[0]
    if config.tied:
        level = jnp.repeat(actions.levels(key, count, config)[:, None], 2, axis=1)
    else:
        level = levels_apart(named_keys(key, "level", "kind"), count, 2, config)
    hidden = jnp.stack([~known, jnp.zeros_like(known)], axis=1)
    return entrywise(jnp.where(hidden, config.sigma_max, level), config.widths(spec))


def joint_loss(
    key: Array, params: Params, told: Lesson, sigma: Array, config: PADConfig, spec: Spec
) -> Array:
    """The observations' mean squared error and `action_weight` times that of the actions that are known.

    At levels `sigma` `[B, D]`. Both are means over the rows that are imitated, of which those without actions
    add 0 to the second. The key is consumed.
    """
    widths, rows = config.widths(spec), share_of(told.keep, sigma.dtype)
    acted = config.action_weight * rows * told.known.astype(sigma.dtype)
    weight = jnp.stack([acted, rows], axis=1) * (sum(widths) / np.array([widths], sigma.dtype))
    apply, weight = conditioned(config.joint(spec).apply), entrywise(weight, widths)
    return config.trains().loss(key, apply, (params, told.seen), told.x0, sigma=sigma, weight=weight)[0]


def _update(
    key: Array, state: PADState, batch: Segments, *, config: PADConfig, spec: Spec
) -> tuple[PADState, Metrics]:
    keys, told = named_keys(key, "level", "noise"), lesson(state, batch, config, spec)
    sigma = levels(keys["level"], told.known, config, spec)
    return chunks.imitate(
        state, lambda params: joint_loss(keys["noise"], params, told, sigma, config, spec), config
    )


def denoiser(params: Params, seen: Array, *, config: PADConfig, spec: Spec) -> Denoiser:
    """Of both parts `[B, D]`, given a condition `[B, C]`."""
    return config.trains().denoiser(conditioned(config.joint(spec).apply), (params, seen))


def _clipped(own: Denoiser, x: Array, sigma: Array, *, count: int) -> Array:
    found = own(x, sigma)
    return jnp.concatenate([jnp.clip(found[:, :count], -1.0, 1.0), found[:, count:]], axis=-1)


def drawn(key: Array, state: PADState, past: Past, goal: Array, parts: Chunks) -> tuple[Array, Array]:
    """Actions `[B, chunk, A]` and, in the units of the task, the observations that they lead to `[B, K, O]`.

    At what was seen, as the guide of `parts` takes it. The key is consumed.
    """
    config, spec, rows = parts.config, parts.spec, goal.shape[0]
    assert isinstance(config, PADConfig)
    count, width = config.widths(spec)[0], sum(config.widths(spec))
    clip = Bound(_clip, (("count", count),))
    own = clip(parts.denoiser(state.actor.ema, parts.shown(state, past, goal)))
    scale = JointScale(state.standardise, identity(spec.action_dim), config.sigma_data, state.change)
    own = actions.steered(own, parts.guide, past, goal, scale, width=width, clip=clip)
    x0 = config.sampling().draw(key, own, (rows, width))
    change = state.change.inverse(x0[:, count:] / config.sigma_data).reshape(rows, -1, spec.observation_dim)
    return parts.decoded(x0[:, :count]), past.history[:, -1:] + change


def _clip(own: Denoiser, *, count: int) -> Denoiser:
    return bind(_clipped, own, count=count)


def act(
    key: Array, state: PADState, carry: ChunkCarry, observation: Array, goal: Array, *, parts: Chunks
) -> tuple[ChunkCarry, Decision]:
    """A step of the policy that draws actions with what they lead to, which is left out."""
    return chunks.step(carry, observation, lambda past: drawn(key, state, past, goal, parts)[0])


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(PADConfig(), task)


@register(
    "policy",
    "pad",
    PADConfig,
    presets,
    title="PAD",
    paper="arXiv 2411.18179",
    idea="denoises actions with the observations they lead to; learns from rows without actions too",
    departures="observations are vectors, whose changes an MLP predicts, by EDM; actions that a row has "
    "not are hidden by noise of the first level, where the authors' code denoises zeros",
    fit=falling_rates,
)
@lru_cache
def pad(config: PADConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """PAD as a policy; equal arguments give the same one; a guide sees rows `[B, 1, D]` of both parts."""
    own = Bound(denoiser, (("config", config), ("spec", spec)))
    learner = chunks.clone_learner(_init, _update, config, spec)
    if config.action_share < 1:
        learner = learner._replace(draws=ActionShareDraw(together(learner.draws), config.action_share))
    return Method(learner, Chunks(own, config, spec, guide).policy(act))
