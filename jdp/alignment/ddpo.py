"""DDPO (Black et al. 2023, arXiv 2305.13301): policy gradients on the steps of a denoising chain."""

from dataclasses import dataclass
from functools import lru_cache

from jdp.alignment import advantages
from jdp.alignment.chain import ChainConfig, chain_learner
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.registry import register
from jdp.types import Learner


@dataclass(frozen=True)
class DDPOConfig(ChainConfig):
    """Settings of DDPO."""

    normalise: bool = False
    """Whether advantages are divided by their group's spread, as the authors do: rewards lose their unit,
    and `kl_weight` its meaning."""


@register(
    "alignment",
    "ddpo",
    DDPOConfig,
    presets_of(
        DDPOConfig(learning_rate=3e-3),
        150,
        16,
        paper=DDPOConfig(learning_rate=3e-4, clip=1e-4, log_prob="mean", normalise=True, kl_weight=0.0),
    ),
    title="DDPO",
    paper="arXiv 2305.13301",
    idea="policy gradients on the steps of a denoising chain",
    departures="held to the model by a divergence, which the authors leave out; groups in the place of a "
    "running mean for each prompt",
)
@lru_cache
def ddpo(config: DDPOConfig, model: Model) -> Learner:
    """DDPO of `model`. Equal arguments give the same learner."""
    return chain_learner(config, model, advantages.group if config.normalise else advantages.centred)
