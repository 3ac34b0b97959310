"""RLCM (Oertell et al. 2024, arXiv 2404.03673): policy gradients on the few steps of a consistency model."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages, chain, surrogates
from jdp.alignment.chain import ChainConfig, Rows, chain_learner
from jdp.alignment.learner import Aligned
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.diffusion.transitions import consistency
from jdp.errors import UserError, check_settings
from jdp.registry import register
from jdp.types import Bound, Learner, Metrics


@dataclass(frozen=True)
class RLCMConfig(ChainConfig):
    """Settings of RLCM."""

    std_floor: float = 1e-6
    """Least standard deviation of a step; that of the last one, which is not learned from."""
    last_step: bool = False
    """Whether the step to level 0, which brings no noise, is learned from: then it needs a `std_floor`."""
    objective: Literal["ppo", "rebel"] = "ppo"
    """PPO's surrogate of single steps, or REBEL's regression of pairs of whole chains."""
    regression: float = 1.0
    """REBEL's eta: differences of rewards are regressed on as many log ratios."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_settings(name, regression=(self.regression, 1e-6, 1e6))
        if self.objective == "rebel" and self.group % 2:
            raise UserError(f"{name}.group is {self.group}: REBEL compares pairs, give an even number")


def _pairs(key: Array, state: Aligned, batch: Array, **settings: Any) -> tuple[Rows, Metrics]:
    """Pairs of whole chains at one condition, `[P * K / 2, 2, n, ...]`."""
    rows, told = chain.collect_whole(key, state, batch, **settings)
    return jax.tree.map(lambda x: x.reshape(len(x) // 2, 2, *x.shape[1:]), rows), told


def _regressed(
    log_prob: Array, rows: Rows, config: ChainConfig, *, beta: float, scale: float
) -> tuple[Array, Metrics]:
    """REBEL, of rewards less `beta` log ratios to the model as it was: at 0 the chain is the tilt."""
    del config
    log_ratio = log_prob - rows.log_prob
    worth = rows.advantage[..., 0] - beta * jnp.sum(rows.apart, axis=-1)
    loss = surrogates.rebel(jnp.sum(log_ratio, axis=-1), worth, scale)
    return loss, {"policy_loss": loss, "approximate_kl": surrogates.estimated_kl(log_ratio)}


@register(
    "alignment",
    "rlcm",
    RLCMConfig,
    presets_of(RLCMConfig(learning_rate=3e-3, epochs=4), 100, 16, paper=RLCMConfig()),
    title="RLCM",
    paper="arXiv 2404.03673",
    idea="policy gradients on the few steps of a consistency model, or REBEL's regression (arXiv 2404.16767)",
    departures="held to the model by a divergence; groups in the place of a running mean for each prompt",
    consistency=True,
)
@lru_cache
def rlcm(config: RLCMConfig, model: Model) -> Learner:
    """RLCM of `model`, whose denoiser is a consistency function. Equal arguments give the same learner."""
    if config.objective == "ppo":
        return chain_learner(config, model, advantages.centred, consistency)
    # The divergence is in the rewards, so nowhere else.
    own = replace(config, kl_weight=0.0, kl_to_go=False)
    regressed = Bound(_regressed, (("beta", config.kl_weight), ("scale", config.regression)))
    return chain_learner(own, model, advantages.centred, consistency, collect=_pairs, surrogate=regressed)
