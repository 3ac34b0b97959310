"""LOOP (Gupta et al. 2025, arXiv 2503.00897): PPO on chains, with leave-one-out baselines."""

from dataclasses import dataclass
from functools import lru_cache

from jdp.alignment import advantages
from jdp.alignment.chain import ChainConfig, chain_learner
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.registry import register
from jdp.types import Learner


@dataclass(frozen=True)
class LOOPConfig(ChainConfig):
    """Settings of LOOP."""

    group: int = 4
    """Samples for each condition, all of which are learned from."""
    epochs: int = 4
    """Passes over the samples of an update."""


@register(
    "alignment",
    "loop",
    LOOPConfig,
    presets_of(
        LOOPConfig(learning_rate=2e-3),
        60,
        64,
        paper=LOOPConfig(learning_rate=3e-4, clip=1e-4, log_prob="mean"),
    ),
    title="LOOP",
    paper="arXiv 2503.00897",
    idea="PPO on chains; of several samples each is judged by the mean of the others",
    departures="held to the model by a divergence",
)
@lru_cache
def loop(config: LOOPConfig, model: Model) -> Learner:
    """LOOP of `model`. Equal arguments give the same learner."""
    return chain_learner(config, model, advantages.leave_one_out)
