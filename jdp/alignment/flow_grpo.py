"""Flow-GRPO (Liu et al. 2025, arXiv 2505.05470): GRPO on the chains of a flow that is drawn as an SDE."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages, chain
from jdp.alignment.chain import ChainConfig, Rows, chain_learner, counted
from jdp.alignment.learner import Aligned
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.diffusion.transitions import flow_sde
from jdp.errors import check_settings
from jdp.registry import register
from jdp.types import Learner, Metrics


@dataclass(frozen=True)
class FlowGRPOConfig(ChainConfig):
    """Settings of Flow-GRPO."""

    group: int = 24
    """Samples for each condition."""
    eta: float = 0.7 / 2**0.5
    """Scales the noise of a step: the paper's `a` over the root of 2; 1 keeps no memory of the start."""
    kl_weight: float = 0.04
    """Beta: of the divergence from the model as it was, in units of the reward as `spread` leaves it."""
    kl_to_go: bool = False
    """Whether a step answers for the divergence of later ones too; without it the gradient is biased."""
    last_step: bool = False
    """Whether the step to level 0 is learned from."""
    spread: Literal["batch", "group", "none"] = "batch"
    """Whose standard deviation advantages are divided by; "none" keeps the reward's unit."""
    levels: int | None = 10
    """Steps of a chain that is learned from, fewer than in use; None: as in use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is not None:
            check_settings(type(self).__name__, levels=(self.levels, 2, 10_000))


def _collect(key: Array, state: Aligned, batch: Array, **settings: Any) -> tuple[Rows, Metrics]:
    """Chains, without the groups in which all are rewarded alike."""
    rows, told = chain.collect(key, state, batch, **settings)
    told_apart = rows.advantage != 0
    share = jnp.mean(told_apart.astype(jnp.float32))
    return rows._replace(weight=counted(told_apart)), {**told, "told_apart": share}


@register(
    "alignment",
    "flow_grpo",
    FlowGRPOConfig,
    presets_of(
        FlowGRPOConfig(
            learning_rate=4e-3, group=16, epochs=4, levels=None, eta=1.0, spread="none", kl_weight=1.0
        ),
        60,
        16,
        paper=FlowGRPOConfig(),
    ),
    title="Flow-GRPO",
    paper="arXiv 2505.05470",
    idea="GRPO on the chains of a flow, drawn as an SDE with its marginals; few steps in training",
    departures="steps of the SDE are solved for a fixed denoised sample; densities are sums over the entries "
    "of a sample, and the clip is PPO's; no average of the weights",
)
@lru_cache
def flow_grpo(config: FlowGRPOConfig, model: Model) -> Learner:
    """Flow-GRPO of `model`. Equal arguments give the same learner."""
    if config.levels is not None:
        model = model._replace(sampling=replace(model.sampling, steps=config.levels))
    return chain_learner(config, model, advantages.SPREADS[config.spread], flow_sde, collect=_collect)
