"""DiffusionDrive (Liao et al. 2024, arXiv 2411.15139): typical chunks, scored, and denoised in two steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.data.normalise import Affine
from jdp.diffusion import formulations
from jdp.diffusion.formulations import Formulation
from jdp.errors import check_choices, check_settings
from jdp.learning import averaged
from jdp.learning.anchors import fit_anchors, focal_loss, nearest, some_chunks
from jdp.learning.averaged import Averaged
from jdp.learning.fitting import falling_rates
from jdp.learning.guides import Past
from jdp.networks.conditional_mlp import conditioned
from jdp.networks.mlp import mlp
from jdp.policies import actions, chunks
from jdp.policies.chunks import ChunkCarry, ChunkConfig, Chunks
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, mean_of, share_of
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
    named_keys,
)

FITTED = 4096  # chunks that the anchors are fitted to


@dataclass(frozen=True)
class DiffusionDriveConfig(ChunkConfig):
    """Settings of DiffusionDrive: 8 actions are predicted, as its trajectories have 8 poses, 4 executed.

    Two Euler steps from .4 by .1 to 0 put 95 % of the samples of eight modes of std .1 on their mode, from
    anchors that are .15 off; two steps from noise alone none (an exact denoiser).
    """

    chunk: int = 8
    """Actions that are predicted, from the present one on."""
    execute: int = 4
    """Actions that are executed before the next prediction."""
    anchors: int = 20
    """Typical chunks of the dataset, by k-means."""
    noised: Literal["anchors", "data"] = "anchors"
    """What the denoiser sees noised in training: the anchor that is nearest to the chunk, as in the paper,
    where chunks come out as the mean of an anchor's own; or the chunk itself, as any diffusion model does."""
    temperature: float = 0.0
    """Of the choice of an anchor, drawn in proportion to `score^(1 / temperature)`; 0 takes the best one, as
    in the paper. At 1, with scores of cross-entropy, anchors are drawn as often as the data have them."""
    score_weight: float = 0.1
    """Of the loss of the scores beside that of the chunks."""
    score_features: int = 256
    """Width of the two layers that score the anchors."""
    focal_gamma: float = 2.0
    """Of the focal loss: the higher, the less counts what is well known. 0 with focal_alpha .5 is half of
    cross-entropy, whose scores are the chances of the anchors."""
    focal_alpha: float = 0.25
    """Of the focal loss: weight of the right anchor; every other one has 1 less it."""
    learning_rate: float = 1e-4
    """Of Adam at the first step."""
    sampler: str = "euler"
    """One of `jdp.diffusion.samplers.SAMPLERS`."""
    sampling_steps: int = 2
    """Steps of the sampler."""
    sigma_min: float = 0.1
    """Last positive level of the schedule: the second of two."""
    sigma_max: float = 0.4
    """The level that anchors are noised to; training ends there too. p_mean and p_std are not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        check_settings(
            type(self).__name__,
            anchors=(self.anchors, 2, FITTED),
            temperature=(self.temperature, 0, 1e6),
            focal_gamma=(self.focal_gamma, 0, 10),
            focal_alpha=(self.focal_alpha, 0, 1),
        )

    def trains(self) -> Formulation:
        """The chunk itself is predicted, at low levels."""
        return formulations.low(self.sigma_max)

    def scores(self) -> Network:
        """Of what is seen `[B, C]` to logits `[B, K]`."""
        return mlp((self.score_features, self.score_features, self.anchors), activation="silu")


class DriveState(NamedTuple):
    """The denoiser and the scores with their averaged weights, and the anchors."""

    actor: Averaged  # of {"denoiser", "scores"}
    standardise: Affine  # of observations, [O]
    anchors: Array  # [K, chunk * A]


def _init(key: Array, rows: SegmentRows, *, config: DiffusionDriveConfig, spec: Spec) -> DriveState:
    keys = named_keys(key, "denoiser", "scores", "chunks", "anchors")
    begun = chunks.init(keys["denoiser"], rows, config=config, spec=spec)
    seen = jnp.zeros(config.history * spec.observation_dim + len(spec.goal))
    params = {"denoiser": begun.actor.params, "scores": config.scores().init(keys["scores"], seen)}
    fitted = some_chunks(keys["chunks"], rows, config.chunk, FITTED)
    anchors = fit_anchors(keys["anchors"], fitted, config.anchors)
    return DriveState(averaged.begin(config.optimiser(), params), begun.standardise, anchors)


def losses(
    key: Array,
    params: Params,
    anchors: Array,
    seen: Array,
    chunk: Array,
    keep: Array,
    config: DiffusionDriveConfig,
) -> tuple[Array, Array]:
    """Of the chunks `[B, D]` at conditions `[B, C]`, and of the scores; means over the rows `keep` `[B]`.

    A chunk's own anchor is the nearest one. The key is consumed.
    """
    keys, form = named_keys(key, "level", "noise"), config.trains()
    which, sigma = nearest(chunk, anchors), actions.levels(keys["level"], chunk.shape[0], config)
    noise = jax.random.normal(keys["noise"], chunk.shape)
    if config.noised == "anchors":  # x = anchor + sigma noise, said of the chunk
        noise = noise + (anchors[which] - chunk) / sigma[:, None]
    apply, weight = conditioned(config.network().apply), share_of(keep, chunk.dtype)
    found = form.error(apply, (params["denoiser"], seen), chunk, sigma, noise, weight)[0]
    said = config.scores().apply(params["scores"], seen)
    focal = focal_loss(said, which, gamma=config.focal_gamma, alpha=config.focal_alpha)
    return found, mean_of(focal, keep)


def _update(
    key: Array, state: DriveState, batch: Segments, *, config: DiffusionDriveConfig, spec: Spec
) -> tuple[DriveState, Metrics]:
    seen, chunk = chunks.example(batch, state.standardise, config, spec)
    keep = imitated(batch, spec)

    def loss(params: Params) -> tuple[Array, Metrics]:
        found, score = losses(key, params, state.anchors, seen, chunk, keep, config)
        total = found + config.score_weight * score
        return total, {"loss": total, "chunk_loss": found, "score_loss": score}

    actor, metrics = averaged.descend(config.optimiser(), state.actor, loss, config.ema)
    return state._replace(actor=actor), metrics


def _denoiser(params: Params, seen: Array, *, config: DiffusionDriveConfig) -> Denoiser:
    return actions.denoiser(params["denoiser"], seen, config)


def chosen(key: Array, state: DriveState, seen: Array, *, config: DiffusionDriveConfig) -> Array:
    """`[B, chunk * A]`, the anchor of the highest score for each of `seen` `[B, C]`; consumes the key."""
    score = jax.nn.log_sigmoid(config.scores().apply(state.actor.ema["scores"], seen))
    if config.temperature > 0:
        return state.anchors[jax.random.categorical(key, score / config.temperature)]
    return state.anchors[jnp.argmax(score, axis=1)]


def _act(
    key: Array, state: DriveState, carry: ChunkCarry, observation: Array, goal: Array, *, parts: Chunks
) -> tuple[ChunkCarry, Decision]:
    def sample(past: Past) -> Array:
        keys, config = named_keys(key, "choose", "draw"), cast(DiffusionDriveConfig, parts.config)
        centre = chosen(keys["choose"], state, parts.shown(state, past, goal), config=config)
        denoiser = parts.steered(state, past, goal)
        return config.sampling().draw(keys["draw"], denoiser, centre.shape, around=centre)

    return chunks.step(carry, observation, sample)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(DiffusionDriveConfig(), task)


@register(
    "policy",
    "diffusion_drive",
    DiffusionDriveConfig,
    presets,
    title="DiffusionDrive",
    paper="arXiv 2411.15139",
    idea="scores typical chunks of the data, noises the best one a little and denoises it in 2 steps",
    departures="scores are read off what is seen before any denoising, so one anchor is denoised, not all; "
    "an MLP of the flat chunk, its squared error in place of the absolute one; on request chunks are noised "
    "in training, not their anchors",
    fit=falling_rates,
)
@lru_cache
def diffusion_drive(config: DiffusionDriveConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """DiffusionDrive of chunks of actions; equal arguments give the same one.

    Its chain is `Sampling.draw(around=anchors)`, which takes the denoiser of any trained model; what learns
    beside it are `fit_anchors` and the scores.
    """
    settings = (("config", config),)
    return chunks.chunk_method(_init, _update, Bound(_denoiser, settings), config, spec, guide, _act)
