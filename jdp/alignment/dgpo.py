"""DGPO (Liuliakov et al. 2026, arXiv 2602.19261): eager policy gradients, straight at the final sample.

The gradient `A grad log p(x0 | x_t)` of graph diffusion (GDPO of graphs, Liu et al. 2024, arXiv 2402.16302)
in the place of that of each step; it is biased and less noisy. Directed graphs are not part of it here.
"""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages, tokens
from jdp.alignment.learner import Aligned, aligned, each, in_groups
from jdp.alignment.models import TokenModel
from jdp.alignment.presets import presets_of
from jdp.alignment.tokens import Rows, StepsConfig
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class DGPOConfig(StepsConfig):
    """Settings of DGPO; there is no ratio, and `clip` counts for nothing."""

    learned: int = 2
    """Steps of a chain that are learned from, at random."""
    kl_weight: float = 0.0
    """Beta: of the divergence of a masked token, in units of the advantage; the authors have none."""


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: DGPOConfig, model: TokenModel
) -> tuple[Rows, Metrics]:
    keys, condition, params = named_keys(key, "chain", "steps"), each(batch, config), state.trained.params
    chain = model.chain(keys["chain"], params, condition)
    steps = jax.random.permutation(keys["steps"], model.sampling.steps)[: config.learned]
    visited = jnp.moveaxis(chain.states[steps], 0, 1)
    reward = state.judge(chain.tokens, condition)
    judged = advantages.group(in_groups(reward, config)).reshape(-1)
    target, judged = (jnp.repeat(x[:, None], config.learned, axis=1) for x in (chain.tokens, judged))
    rows = tokens.rows_of(params, condition, visited, target, judged, model)
    return rows, {"reward": jnp.mean(reward)}


def loss(
    params: Params, rows: Rows, *, reference: Params, config: DGPOConfig, model: TokenModel
) -> tuple[Array, Metrics]:
    """`-mean A sum_i log p(x0_i | x_t)` over the masked tokens."""
    found = tokens.predicted(params, rows.shown, rows.state, model)
    ours = jnp.sum(tokens.log_prob(found, rows.state, rows.target, model), axis=-1)
    penalty, apart = tokens.held(found, rows, reference, config, model)
    total = penalty - jnp.mean(rows.advantage * ours)
    moved = jnp.mean(jnp.sum(rows.log_prob, axis=-1) - ours)
    return total, {"loss": total, "kl": apart, "approximate_kl": moved}


@register(
    "alignment",
    "dgpo",
    DGPOConfig,
    presets_of(DGPOConfig(learning_rate=2e-3), 60, 8),
    title="DGPO",
    paper="arXiv 2602.19261",
    idea="of tokens: eager policy gradients, of log p(x0 given x_t) in the place of each step's",
    departures="of sequences under masked diffusion, where the authors' are directed graphs under another "
    "one; rewards are normalised over the group",
    tokens=True,
)
@lru_cache
def dgpo(config: DGPOConfig, model: TokenModel) -> Learner:
    """DGPO of `model`. Equal arguments give the same learner."""
    return aligned(_collect, loss, config, tokens.checked(config, model))
