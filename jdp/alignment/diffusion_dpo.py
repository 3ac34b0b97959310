"""Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908): preferences, by how well samples are denoised."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import surrogates
from jdp.alignment.learner import Aligned, aligned
from jdp.alignment.matching import MatchingConfig, Noised, error, noised
from jdp.alignment.models import Model
from jdp.alignment.pairs import Pairs
from jdp.alignment.presets import presets_of
from jdp.learning.ppo import flat
from jdp.registry import register
from jdp.types import Learner, Metrics, Params


@dataclass(frozen=True)
class DiffusionDPOConfig(MatchingConfig):
    """Settings of Diffusion-DPO; a batch is of pairs, `kl_weight` is its beta."""

    weight: str = "elbo"
    """Of levels: "elbo", the bound on the log density, in nats, or "uniform", as the authors have it."""
    most: float = 20.0
    """The most that a level counts, with "elbo": levels near 0 count without bound."""


class Rows(NamedTuple):
    """Both samples of each pair at the same levels and noise, `[P, M, ...]`."""

    winner: Noised
    loser: Noised


def _collect(
    key: Array, state: Aligned, batch: Pairs, *, config: DiffusionDPOConfig, model: Model
) -> tuple[Rows, Metrics]:
    del state, model
    lead = len(batch.winner), config.levels
    found = noised(key, batch.winner, batch.condition, config)
    winner = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), found)
    return Rows(winner, winner._replace(x0=jnp.repeat(batch.loser[:, None], config.levels, axis=1))), {}


def weights(time: Array, config: DiffusionDPOConfig) -> Array:
    """`[R]`: with "elbo" an error of velocities at these times, summed over entries, becomes nats.

    The bound is `1/2 E integral |D - x0|^2 d(1 / sigma^2)`; in the time of the flow, whose velocity errs by
    `|D - x0| / t`, a level counts `t^2 |d(1 / sigma^2) / dt| / 2 = (1 - t) / t`.
    """
    if config.weight == "uniform":
        return jnp.ones_like(time)
    return jnp.minimum((1 - time) / time, config.most) * (1 - 2 * config.least)


def _loss(
    params: Params, rows: Rows, *, reference: Params, config: DiffusionDPOConfig, model: Model
) -> tuple[Array, Metrics]:
    """`-log sigmoid(beta (m_w - m_l))`, m: how much better a sample is denoised than by the reference."""
    lead = rows.winner.time.shape

    def better(found: Noised) -> Array:
        one = flat(found)
        ours, theirs = (error(p, one, model) for p in (params, reference))
        return (model.size * weights(one.time, config) * (theirs - ours)).reshape(lead)

    margin = better(rows.winner) - better(rows.loser)
    if config.weight == "elbo":  # the bound is a mean over levels, so it comes before the sigmoid
        margin = jnp.mean(margin, axis=1)
    return surrogates.preferred(margin, config.kl_weight)


@register(
    "alignment",
    "diffusion_dpo",
    DiffusionDPOConfig,
    presets_of(DiffusionDPOConfig(), 1500, 256),
    title="Diffusion-DPO",
    paper="arXiv 2311.12908",
    idea="preferences: what won is to be denoised better than by the model as it was, what lost worse",
    departures="levels count as in the bound on the log density, cut at 20, and a pair is seen at several",
    rows="pairs",
)
@lru_cache
def diffusion_dpo(config: DiffusionDPOConfig, model: Model) -> Learner:
    """Diffusion-DPO of `model`, from `Pairs`. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, model)
