"""AWM (Xue et al. 2025, arXiv 2509.25050): PPO, with the training loss in the place of a log density."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.learner import Aligned, aligned, check_baseline, each, in_groups
from jdp.alignment.matching import MatchingConfig, Noised, apart, denoised, error, gap, noised
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.learning.ppo import clipped_surrogate
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class AWMConfig(MatchingConfig):
    """Settings of advantage-weighted matching."""

    clip: float = 1.0
    """How far the ratio of `exp(-error)` may go from 1."""
    floor: float = 0.9
    """Advantages end at `-floor * kl_weight`: below `-kl_weight` what is learned there has no optimum."""
    normalise: bool = False
    """Whether advantages are divided by their group's spread, as the authors do: rewards lose their unit,
    and `kl_weight` its meaning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self)


class Rows(NamedTuple):
    """Noised samples `[R, ...]`, how well they were found again, and how good they are."""

    noised: Noised
    log_prob: Array
    advantage: Array


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: AWMConfig, model: Model
) -> tuple[Rows, Metrics]:
    """Samples of the model as it is; old and new parameters see the same levels and noise."""
    keys, condition = named_keys(key, "sample", "noise"), each(batch, config)
    params = state.trained.params
    x0 = model.sample(keys["sample"], params, condition)
    reward = state.judge(x0, condition)
    judge = advantages.group if config.normalise else advantages.centred
    rows = noised(keys["noise"], x0, condition, config)
    advantage = jnp.maximum(judge(in_groups(reward, config)).reshape(-1), -config.floor * config.kl_weight)
    told = {"reward": jnp.mean(reward)}
    return Rows(rows, -error(params, rows, model), jnp.repeat(advantage, config.levels)), told


def _loss(
    params: Params, rows: Rows, *, reference: Params, config: AWMConfig, model: Model
) -> tuple[Array, Metrics]:
    found = denoised(params, rows.noised, model)
    log_prob = -gap(found, rows.noised.x0, rows.noised, model)
    loss, metrics = clipped_surrogate(log_prob, rows.log_prob, rows.advantage, config.clip)
    far = apart(found, reference, rows.noised, model)
    total = loss + config.kl_weight * far
    return total, {"loss": total, **metrics, "kl": far}


@register(
    "alignment",
    "awm",
    AWMConfig,
    presets_of(
        AWMConfig(), 400, paper=AWMConfig(group=24, learning_rate=3e-4, normalise=True, kl_weight=1e-3)
    ),
    title="AWM",
    paper="arXiv 2509.25050",
    idea="PPO with the training loss in the place of a log density: no chain is looked at",
    departures="levels count evenly in the time of the flow; one divergence, from the model as it was",
)
@lru_cache
def awm(config: AWMConfig, model: Model) -> Learner:
    """Advantage-weighted matching of `model`. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, model)
