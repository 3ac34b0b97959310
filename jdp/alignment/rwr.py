"""Reward-weighted regression (of diffusion models: Lee et al. 2023, arXiv 2302.12192)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.learner import Aligned, aligned, check_baseline, each, in_groups
from jdp.alignment.matching import MatchingConfig, Noised, error, noised
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.errors import check_choices
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys

GROUP_FLOOR = 1e-6  # beside the standard deviation of a group's rewards, as in HDP's code


@dataclass(frozen=True)
class RWRConfig(MatchingConfig):
    """Settings of reward-weighted regression; `kl_weight` is the temperature of the weights."""

    levels: int = 1
    """Levels that each sample is noised to, in an update."""
    weights: Literal["softmax", "group"] = "softmax"
    """softmax: `exp(r / kl_weight)`, normalised over the samples of a condition; group: `exp(A / kl_weight)`
    as it is, of the advantage A in standard deviations of the condition's rewards (Hyper Diffusion Planner,
    arXiv 2602.22801, with a kl_weight of 1): the unit of rewards does not matter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        if self.weights == "group":
            check_baseline(self)


class Rows(NamedTuple):
    """Noised samples `[R, ...]`, and how much each counts."""

    noised: Noised
    weight: Array


def weights_of(reward: Array, config: RWRConfig) -> Array:
    """`[P, K]`, how much samples count by their rewards `[P, K]`, K at each of P conditions.

    By the group they are the softmax of a temperature of `kl_weight` of the condition's own standard
    deviations, times the mean of `exp(A / kl_weight)` there: each condition's optimum is the tilt
    `p exp(A / kl_weight)`.
    """
    if config.weights == "group":
        return jnp.exp(advantages.group(reward, GROUP_FLOOR) / config.kl_weight)
    return jax.nn.softmax(reward / config.kl_weight) * reward.shape[1]


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: RWRConfig, model: Model
) -> tuple[Rows, Metrics]:
    """Samples of the model as it was, weighted beside those of their condition: `weights_of`.

    Where there are no conditions those are all of them.
    """
    keys, condition = named_keys(key, "sample", "noise"), each(batch, config)
    x0 = model.sample(keys["sample"], state.reference, condition)
    reward = state.judge(x0, condition)
    rivals = in_groups(reward, config) if batch.shape[1] else reward[None]
    weight = weights_of(rivals, config).reshape(-1)
    rows = noised(keys["noise"], x0, condition, config)
    share = weight / jnp.sum(weight)
    told = {"reward": jnp.sum(share * reward), "effective": 1 / jnp.sum(share**2)}
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
    departures="weights are normalised over the samples of a condition: without it conditions compete; on "
    "request those of Hyper Diffusion Planner (arXiv 2602.22801), by the group's advantage",
)
@lru_cache
def rwr(config: RWRConfig, model: Model) -> Learner:
    """Its optimum is the exact tilt `p exp(r / beta)`. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, model)
