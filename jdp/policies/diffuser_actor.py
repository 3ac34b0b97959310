"""The geometry of 3D Diffuser Actor (Ke et al. 2024, arXiv 2402.10885): it moves with the points it sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.data.checks import check_fits
from jdp.diffusion.sampling import LeveledSampling
from jdp.diffusion.schedules import per_group
from jdp.diffusion.times import COSINE, SCALED_LINEAR, at_same_time
from jdp.errors import UserError, check_settings
from jdp.learning import averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past
from jdp.learning.scale import clip_action
from jdp.networks import from_module
from jdp.networks.conditional_mlp import conditioned
from jdp.networks.flat import flat
from jdp.networks.layers import dtype_of
from jdp.networks.rope_nd import PointTransformer
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkCarry, Chunks, CloneState
from jdp.policies.points import PointConfig, Seen, layout, seen, standardiser
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated
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


@dataclass(frozen=True)
class DiffuserActorConfig(PointConfig):
    """Settings of 3D Diffuser Actor, of points in a plane or in space."""

    chunk: int = 8
    """Actions that are predicted, from the present one on."""
    execute: int = 4
    """Actions that are executed before the next prediction."""
    features: int = 128
    """Width of the tokens."""
    heads: int = 4
    """Of attention."""
    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    sampling_steps: int = 10
    """Steps of the sampler."""
    rest_schedule: Literal["cosine", "scaled_linear"] = "cosine"
    """Of the rest; positions have scaled_linear. At one time either has its own level."""
    wavelengths: tuple[float, float] = (0.5, 32.0)
    """Of the rotary embedding, the shortest and the longest, in standard deviations of the points."""
    rotate_values: bool = False
    """Turn values too (GTA, arXiv 2310.10375), not queries and keys alone as the paper does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name, pairs = type(self).__name__, self.features // self.heads // (2 * self.dimension)
        check_settings(name, heads=(self.heads, 1, self.features))
        if self.features % self.heads or not pairs:
            raise UserError(
                f"{name} needs features ({self.features}) that its {self.heads} heads divide, and a pair of "
                f"them in each head for each of {self.dimension} dimensions"
            )
        if not 0 < self.wavelengths[0] < self.wavelengths[1]:
            raise UserError(f"{name}.wavelengths are {self.wavelengths}: they rise from above 0")

    def network(self, groups: tuple[int, ...] = (0,)) -> Network:
        """Of flat chunks `[B, chunk * A]`, seeing a `Scene`."""
        del groups
        first = next(entry for entry in range(len(self.rest) + 1) if entry not in self.rest)
        module = PointTransformer(
            self.features,
            self.blocks,
            self.heads,
            dtype_of(self.precision),
            place=self.place,
            groups=(first, *self.rest[:1]),
            wavelengths=self.wavelengths,
            values=self.rotate_values,
        )
        return flat(from_module(module), self.chunk)

    def levels(self, sigma: Array, spec: Spec) -> Array:
        """`[n, 1, chunk * A]`, of each entry at the times at which positions have levels `sigma` `[n]`."""
        other = sigma
        if self.rest_schedule == "cosine":
            other = at_same_time(sigma, SCALED_LINEAR, COSINE)
        every = range(self.chunk * spec.action_dim)
        rest = [entry for entry in every if entry % spec.action_dim in self.rest]
        return per_group([(sigma, [entry for entry in every if entry not in rest]), (other, rest)])


def _levels(sigma: Array, *, config: DiffuserActorConfig, spec: Spec) -> Array:
    return config.levels(sigma, spec)


@dataclass(frozen=True)
class PointChunks(Chunks):
    """Chunks of a policy that is shown points."""

    def shown(self, state: Any, past: Past, goal: Array) -> Seen:
        """Of what was seen."""
        config = cast(DiffuserActorConfig, self.config)
        return seen(state.standardise, past.history[:, -config.history :], goal, config, self.spec)


def _init(key: Array, rows: SegmentRows, *, config: DiffuserActorConfig, spec: Spec) -> CloneState:
    check_fits(rows.observation, rows.action, spec, "policy")
    standardise = standardiser(rows.observation, config, spec)
    first = jnp.zeros((1, config.history, spec.observation_dim)), jnp.zeros((1, len(spec.goal)))
    shown, x = seen(standardise, *first, config, spec), jnp.zeros((1, config.chunk * spec.action_dim))
    params = config.network().init(key, x, jnp.zeros(1), shown.scene)
    return CloneState(averaged.begin(config.optimiser(), params), standardise)


def _update(
    key: Array, state: CloneState, batch: Segments, *, config: DiffuserActorConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    keys, h = named_keys(key, "level", "noise"), config.history
    shown = seen(state.standardise, batch.observation[:, :h], batch.goal, config, spec)
    chunk = batch.action[:, h - 1 :].reshape(shown.centre.shape) - shown.centre
    sigma, keep = actions.levels(keys["level"], chunk.shape[0], config), imitated(batch, spec)
    sigma = config.levels(sigma, spec)[:, 0] if config.rest else sigma

    def loss(params: Params) -> Array:
        return actions.imitation_loss(keys["noise"], params, shown.scene, chunk, sigma, keep, config)

    return chunks.imitate(state, loss, config)


def _around(denoiser: Denoiser, centre: Array, x: Array, sigma: Array) -> Array:
    return centre + denoiser(x - centre, sigma)


def denoiser(params: Params, shown: Seen, *, config: DiffuserActorConfig) -> Denoiser:
    """Of chunks `[B, chunk * A]`; absolute ones are not clipped: the box does not move with the scene."""
    own = config.trains().denoiser(conditioned(config.network().apply), (params, shown.scene))
    return bind(_around, own, shown.centre) if config.place else actions.clipped(own)


def _act(
    key: Array, state: CloneState, carry: ChunkCarry, observation: Array, goal: Array, *, parts: Chunks
) -> tuple[ChunkCarry, Decision]:
    """As `chunks.act`, with noise around the reference and levels of their own for the rest of an action."""
    config = cast(DiffuserActorConfig, parts.config)

    def sample(past: Past) -> Array:
        sampling, centre = config.sampling(), parts.shown(state, past, goal).centre
        if config.rest:
            levels = Bound(_levels, (("config", config), ("spec", parts.spec)))
            sampling = LeveledSampling(own=sampling, levels=levels)
        x0 = sampling.draw(key, parts.steered(state, past, goal), centre.shape, around=centre)
        return clip_action(parts.decoded(x0))

    return chunks.step(carry, observation, sample)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets; the plumbing is seen with one block."""
    return presets_of(DiffuserActorConfig(), task, blocks=1)


@register(
    "policy",
    "diffuser_actor",
    DiffuserActorConfig,
    presets,
    title="3D Diffuser Actor",
    paper="arXiv 2402.10885",
    idea="sees points by rotary attention, as they lie to one another: it moves with the scene",
    departures="the geometry alone, of points that are known: no pictures, no language; what is diffused is "
    "seen from a reference, so that equivariance is exact; EDM on Karras levels with "
    "its squared error, where the paper has 100 steps of DDPM and absolute errors",
    fit=falling_rates,
)
@lru_cache
def diffuser_actor(config: DiffuserActorConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """3D Diffuser Actor as a policy; equal arguments give the same one.

    Where all points move by v, chunks of the same noise move by v where actions are absolute, and stay where
    they are relative. Clipping to the box of actions, and guides, know nothing of that.

    Raises:
        UserError: for groups that are no points, goals that are half of one, and actions that are no places.
    """
    layout(config, spec)
    acting = PointChunks(Bound(denoiser, (("config", config),)), config, spec, guide)
    own = bool(config.rest or config.place)
    return Method(
        chunks.clone_learner(_init, _update, config, spec), acting.policy(_act if own else chunks.act)
    )
