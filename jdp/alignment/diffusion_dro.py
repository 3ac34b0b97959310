"""Diffusion-DRO (Wu et al. 2025, arXiv 2510.18353): experts' samples are ranked above the model's own."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment.learner import Aligned, Memory, aligned
from jdp.alignment.matching import MatchingConfig, Noised, error, noised
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.errors import check_settings
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class DiffusionDROConfig(MatchingConfig):
    """Settings of Diffusion-DRO; a batch is of experts' samples."""

    margin: float = 1.0
    """By how much better experts' samples are to be denoised than the model's own, in squared velocities."""
    refresh: int = 16
    """Updates after which the copy that draws the model's samples is made anew."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, refresh=(self.refresh, 1, 1_000_000))


class Experts(NamedTuple):
    """N samples to be imitated: rows of `Given`."""

    x0: Array  # [N, *event]
    condition: Array  # [N, C]


class Rows(NamedTuple):
    """Experts' samples and the model's own, at the same levels and noise, `[R, ...]`."""

    expert: Noised
    own: Noised


class Drawing(NamedTuple):
    """The copy that draws, and its age in updates."""

    params: Params
    age: Array


def _collect(
    key: Array, state: Aligned, batch: Experts, *, config: DiffusionDROConfig, model: Model
) -> tuple[Rows, Metrics]:
    keys = named_keys(key, "sample", "noise")
    x0 = model.sample(keys["sample"], state.memory.params, batch.condition)
    expert = noised(keys["noise"], batch.x0, batch.condition, config)
    return Rows(expert, expert._replace(x0=jnp.repeat(x0, config.levels, axis=0))), {}


def _loss(
    params: Params, rows: Rows, *, reference: Params, config: DiffusionDROConfig, model: Model
) -> tuple[Array, Metrics]:
    """`max(0, margin + worse(expert) - worse(own))`, worse: than the reference denoises it."""

    def worse(found: Noised) -> Array:
        return error(params, found, model) - error(reference, found, model)

    hinge = jnp.maximum(config.margin + worse(rows.expert) - worse(rows.own), 0.0)
    loss, active = jnp.mean(hinge), jnp.mean((hinge > 0).astype(jnp.float32))
    return loss, {"loss": loss, "active": active, "approximate_kl": jnp.zeros(())}


def _begin(params: Params, *, config: DiffusionDROConfig, model: Model) -> Drawing:
    del config, model
    return Drawing(params, jnp.int32(0))


def _after(memory: Drawing, params: Params, *, config: DiffusionDROConfig, model: Model) -> Drawing:
    del model
    age = memory.age + 1
    renew = age % config.refresh == 0
    return Drawing(jax.tree.map(lambda new, old: jnp.where(renew, new, old), params, memory.params), age)


@register(
    "alignment",
    "diffusion_dro",
    DiffusionDROConfig,
    presets_of(DiffusionDROConfig(), 600, 256),
    title="Diffusion-DRO",
    paper="arXiv 2510.18353",
    idea="imitation: experts' samples are to be denoised better, by a margin, than the model's own",
    departures="the model's samples are noised anew, where the authors keep the chains that drew them",
    rows="experts",
)
@lru_cache
def diffusion_dro(config: DiffusionDROConfig, model: Model) -> Learner:
    """Diffusion-DRO of `model`, from `Experts`. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, model, Memory(_begin, _after))
