"""Reward-weighted regression (of diffusion models: Lee et al. 2023, arXiv 2302.12192)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment.learner import Aligned, aligned, each, in_groups
from jdp.alignment.matching import MatchingConfig, Noised, error, noised
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class RWRConfig(MatchingConfig):
    """Settings of reward-weighted regression; `kl_weight` is the temperature of the weights."""

    levels: int = 1
    """Levels that each sample is noised to, in an update."""


class Rows(NamedTuple):
    """Noised samples `[R, ...]`, and how much each counts."""

    noised: Noised
    weight: Array


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: RWRConfig, model: Model
) -> tuple[Rows, Metrics]:
    """Samples of the model as it was, weighted by `exp(r / beta)`, normalised over those of a condition.

    Where there are no conditions those are all of them.
    """
    keys, condition = named_keys(key, "sample", "noise"), each(batch, config)
    x0 = model.sample(keys["sample"], state.reference, condition)
    reward = state.judge(x0, condition)
    rivals = in_groups(reward, config) if batch.shape[1] else reward[None]
    weight = (jax.nn.softmax(rivals / config.kl_weight) * rivals.shape[1]).reshape(-1)
    rows = noised(keys["noise"], x0, condition, config)
    told = {"reward": jnp.sum(weight * reward) / len(reward), "effective": len(reward) / jnp.mean(weight**2)}
    return Rows(rows, jnp.repeat(weight, config.levels)), told


def _loss(
    params: Params, rows: Rows, *, reference: Params, config: RWRConfig, model: Model
) -> tuple[Array, Metrics]:
    del reference, config
    loss = jnp.mean(rows.weight * error(params, rows.noised, model))
    return loss, {"loss": loss, "approximate_kl": jnp.zeros(())}


@register(
    "alignment",
    "rwr",
    RWRConfig,
    presets_of(
        RWRConfig(learning_rate=2e-3), 1500, run=RWRConfig(learning_rate=1e-4, kl_weight=0.05, levels=4)
    ),
    title="RWR",
    paper="arXiv 2302.12192",
    idea="the training loss on samples of the model as it was, weighted by exp(r / beta)",
    departures="weights are normalised over the samples of a condition: without it conditions compete",
)
@lru_cache
def rwr(config: RWRConfig, model: Model) -> Learner:
    """Its optimum is the exact tilt `p exp(r / beta)`. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, model)
