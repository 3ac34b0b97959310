"""GDPO (Rojas et al. 2025, arXiv 2510.08554): ratios of whole sequences, by their ELBOs."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages
from jdp.alignment.learner import Aligned, aligned, each, in_groups
from jdp.alignment.models import TokenModel
from jdp.alignment.presets import presets_of
from jdp.alignment.tokens import TokenConfig, checked
from jdp.diffusion.discrete.likelihood import Masks, elbo, quadrature
from jdp.errors import check_settings
from jdp.learning.ppo import clipped_surrogate
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class GDPOConfig(TokenConfig):
    """Settings of GDPO."""

    nodes: int = 3
    """Of the quadrature over the time of masking, one mask at each."""
    antithetic: bool = False
    """Whether each node has two masks, which hide different tokens where they can."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, nodes=(self.nodes, 1, 1000))


class _Rows(NamedTuple):
    """Samples `[R, ...]`."""

    shown: Array  # [R, C]
    x0: Array  # [R, L]
    masks: Masks  # the same for all parameters
    log_prob: Array  # [R], the ELBO
    advantage: Array  # [R]


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: GDPOConfig, model: TokenModel
) -> tuple[_Rows, Metrics]:
    keys, condition = named_keys(key, "sample", "masks", "held"), each(batch, config)
    params = state.trained.params
    x0 = model.sample(keys["sample"], params, condition)

    def bound(params: Params, masks: Masks) -> Array:
        return elbo(model.denoiser(params, condition), x0, masks, model.vocabulary)

    # Masks of its own for the divergence: with those of the gradient their noise would be held down with it.
    masks, others = (
        quadrature(keys[k], x0.shape, config.nodes, config.antithetic) for k in ("masks", "held")
    )
    apart = bound(params, others) - bound(state.reference, others)
    reward = state.judge(x0, condition)
    judged = advantages.centred(in_groups(reward - config.kl_weight * apart, config)).reshape(-1)
    told = {"reward": jnp.mean(reward), "kl": jnp.mean(apart)}
    return _Rows(condition, x0, masks, bound(params, masks), judged), told


def _loss(
    params: Params, rows: _Rows, *, reference: Params, config: GDPOConfig, model: TokenModel
) -> tuple[Array, Metrics]:
    del reference
    ours = elbo(model.denoiser(params, rows.shown), rows.x0, rows.masks, model.vocabulary)
    loss, metrics = clipped_surrogate(ours, rows.log_prob, rows.advantage, config.clip)
    return loss, {"loss": loss, **metrics}


@register(
    "alignment",
    "gdpo",
    GDPOConfig,
    presets_of(GDPOConfig(kl_weight=1.0, learning_rate=3e-3, antithetic=True), 500, 8),
    title="GDPO",
    paper="arXiv 2510.08554",
    idea="of tokens: the ratio of whole sequences by their ELBOs, at few nodes of a quadrature",
    departures="the divergence is part of the reward, as the difference of two ELBOs with the same masks, "
    "which makes its gradient whole; the authors add an estimate of it to the loss",
    tokens=True,
)
@lru_cache
def gdpo(config: GDPOConfig, model: TokenModel) -> Learner:
    """GDPO of `model`; its optimum is the tilt. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, checked(config, model))
