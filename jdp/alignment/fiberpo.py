"""FiberPO (Li et al. 2026, arXiv 2603.08239): ratios of a chain's steps, gated as a chain and as steps."""

from dataclasses import dataclass
from functools import lru_cache

from jax import Array

from jdp.alignment import advantages, surrogates
from jdp.alignment.chain import ChainConfig, Rows, chain_learner, collect_whole
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.errors import check_settings
from jdp.registry import register
from jdp.types import Learner, Metrics


@dataclass(frozen=True)
class FiberPOConfig(ChainConfig):
    """Settings of FiberPO; minibatches are of whole chains."""

    epochs: int = 4
    """Passes over the samples of an update."""
    clip: float = 0.1
    """How far the parts of a step's log ratio that its chain does not say may go from 0."""
    rise: float = 0.2
    """Mean rise of the log probability of a chain's steps, beyond which its gradient is rolled back."""
    fall: float = 0.15
    """Mean fall of it, alike; less than `rise`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, rise=(self.rise, 0, 1e9), fall=(self.fall, 0, self.rise))


def _gated(log_prob: Array, rows: Rows, config: FiberPOConfig) -> tuple[Array, Metrics]:
    log_ratio = (log_prob - rows.log_prob).T
    return surrogates.fibre(
        log_ratio, rows.advantage.T, rise=config.rise, fall=config.fall, residual=config.clip
    )


@register(
    "alignment",
    "fiberpo",
    FiberPOConfig,
    presets_of(FiberPOConfig(learning_rate=3e-3), 60, 16),
    title="FiberPO",
    paper="arXiv 2603.08239",
    idea="ratios gated at two scales: a chain's mean change, and what its steps do besides",
    departures="steps of a chain are its tokens; the two scales alone, no groups of prompts or domains; held "
    "to the model by a divergence",
)
@lru_cache
def fiberpo(config: FiberPOConfig, model: Model) -> Learner:
    """FiberPO of `model`. Equal arguments give the same learner."""
    return chain_learner(config, model, advantages.centred, collect=collect_whole, surrogate=_gated)
