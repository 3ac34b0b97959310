"""DiffusionNFT (Zheng et al. 2025, arXiv 2509.16117): good and bad samples teach two mirrored velocities."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.learner import Aligned, Memory, aligned, check_baseline, each, in_groups
from jdp.alignment.matching import MatchingConfig, Noised, apart, denoised, gap, noised
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.errors import check_settings
from jdp.learning.optimiser import polyak
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class NFTConfig(MatchingConfig):
    """Settings of DiffusionNFT."""

    strength: float = 1.0
    """The paper's beta: by how much of the way the two velocities lie beyond the one that drew."""
    old_share: float = 0.5
    """Of the parameters that draw, how much stays after an update."""
    bounded: bool = False
    """Whether rewards are within [0, 1] and taken as they are; else by their advantage, as in the paper."""
    kl_weight: float = 1e-4
    """Of the squared difference from the velocities of the model as it was."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_settings(name, strength=(self.strength, 1e-6, 1e6), old_share=(self.old_share, 0, 1))
        if not self.bounded:
            check_baseline(self)


class Rows(NamedTuple):
    """Noised samples `[R, ...]`, what the parameters that drew make of them, and how good they are."""

    noised: Noised
    old: Array  # [R, *event]
    optimality: Array  # [R], within [0, 1]


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: NFTConfig, model: Model
) -> tuple[Rows, Metrics]:
    """Samples of the parameters that draw, `state.memory`."""
    keys, condition = named_keys(key, "sample", "noise"), each(batch, config)
    x0 = model.sample(keys["sample"], state.memory, condition)
    reward = state.judge(x0, condition)
    good = reward if config.bounded else advantages.optimality(in_groups(reward, config)).reshape(-1)
    rows = noised(keys["noise"], x0, condition, config)
    old = denoised(state.memory, rows, model)
    return Rows(rows, old, jnp.repeat(good, config.levels)), {"reward": jnp.mean(reward)}


def contrast(
    found: Array, old: Array, rows: Noised, optimality: Array, strength: float, model: Model
) -> Array:
    """`[R]`, equation 5 of the paper for what is `found` `[R, *event]`, in place of velocities.

    `r |x+ - x0|^2 + (1 - r) |x- - x0|^2` with `x+ = (1 - b) old + b found` and `x- = (1 + b) old - b found`,
    over `b`. Its optimum is `old + (2 / b) E[r | x] (E[x0 | x, good] - old)`.
    """
    good, bad = (gap(old + b * (found - old), rows.x0, rows, model) for b in (strength, -strength))
    return (optimality * good + (1 - optimality) * bad) / strength


def _loss(
    params: Params, rows: Rows, *, reference: Params, config: NFTConfig, model: Model
) -> tuple[Array, Metrics]:
    found = denoised(params, rows.noised, model)
    both = contrast(found, rows.old, rows.noised, rows.optimality, config.strength, model)
    far = apart(found, reference, rows.noised, model)
    loss = jnp.mean(both) + config.kl_weight * far
    return loss, {"loss": loss, "approximate_kl": jnp.zeros(()), "kl": far}


def _begin(params: Params, *, config: NFTConfig, model: Model) -> Params:
    del config, model
    return params


def _after(memory: Params, params: Params, *, config: NFTConfig, model: Model) -> Params:
    del model
    return polyak(memory, params, 1 - config.old_share)


@register(
    "alignment",
    "nft",
    NFTConfig,
    presets_of(NFTConfig(kl_weight=0.5), 300, paper=NFTConfig(group=24, learning_rate=3e-4)),
    title="DiffusionNFT",
    paper="arXiv 2509.16117",
    idea="good samples pull the velocity, bad ones push its mirror image: no density, no chain",
    departures="errors are not divided by their own size; a constant share of the old parameters stays",
)
@lru_cache
def nft(config: NFTConfig, model: Model) -> Learner:
    """DiffusionNFT of `model`. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, model, Memory(_begin, _after))
