"""MDPO (He et al. 2025, arXiv 2508.13148): the chain of a masked model as a decision process.

It learns on the states that its own sampler visits, and every step is rewarded by what it takes the whole
sequence to be. The sampler's running confidence is `Unmasking(remask=True)`.
"""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages, tokens
from jdp.alignment.learner import Aligned, aligned, each
from jdp.alignment.models import TokenModel
from jdp.alignment.presets import presets_of
from jdp.alignment.tokens import Rows, StepsConfig
from jdp.registry import register
from jdp.types import Learner, Metrics


@dataclass(frozen=True)
class MDPOConfig(StepsConfig):
    """Settings of MDPO."""

    learned: int = 8
    """Steps of a chain that are learned from: those with the largest advantages."""
    kl_weight: float = 0.02
    """Beta: of the divergence of a masked token, in units of the advantage."""


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: MDPOConfig, model: TokenModel
) -> tuple[Rows, Metrics]:
    condition, params = each(batch, config), state.trained.params
    chain = model.chain(key, params, condition)
    reward = jax.vmap(lambda x: state.judge(x, condition))(chain.predictions)  # [n, B]
    advantage = advantages.process(reward.reshape(len(reward), -1, config.group))
    steps = advantages.largest(advantage, config.learned)
    judged = advantage.reshape(reward.shape)
    visited, became, judged = (
        jnp.moveaxis(x[steps], 0, 1) for x in (chain.states, chain.predictions, judged)
    )
    rows = tokens.rows_of(params, condition, visited, became, judged, model)
    return rows, {"reward": jnp.mean(reward[-1]), "first_reward": jnp.mean(reward[0])}


@register(
    "alignment",
    "mdpo",
    MDPOConfig,
    presets_of(MDPOConfig(kl_weight=1.0, learning_rate=2e-3, learned=3), 200, 8),
    title="MDPO",
    paper="arXiv 2508.13148",
    idea="of tokens: learns on its sampler's own states; each step is rewarded by its guess at the whole",
    departures="the divergence of a masked token is exact, where the authors estimate it",
    tokens=True,
)
@lru_cache
def mdpo(config: MDPOConfig, model: TokenModel) -> Learner:
    """MDPO of `model`. Equal arguments give the same learner."""
    return aligned(_collect, tokens.loss, config, tokens.checked(config, model))
