"""UniGRPO (Yang et al. 2025, MMaDA, arXiv 2505.15809): every inner update masks more of the samples."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import advantages, tokens
from jdp.alignment.learner import Aligned, aligned, each, in_groups
from jdp.alignment.models import TokenModel
from jdp.alignment.presets import presets_of
from jdp.alignment.tokens import Rows, TokenConfig
from jdp.diffusion.discrete import masking
from jdp.registry import register
from jdp.types import Learner, Metrics, named_keys


@dataclass(frozen=True)
class UniGRPOConfig(TokenConfig):
    """Settings of UniGRPO."""

    minibatches: int = 4
    """Mu: inner updates, each on all samples, masked at a share of its own."""
    kl_weight: float = 0.01
    """Beta: of the divergence of a masked token, in units of the advantage."""


def shares(key: Array, count: int, updates: int) -> Array:
    """`[mu, B]`: of B samples the shares that are masked, from a random one evenly up to 1."""
    first = jax.random.uniform(key, (count,))[None]
    return first + (1 - first) * jnp.linspace(0.0, 1.0, updates)[:, None]


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: UniGRPOConfig, model: TokenModel
) -> tuple[Rows, Metrics]:
    keys, condition = named_keys(key, "sample", "shares", "masks"), each(batch, config)
    x0 = model.sample(keys["sample"], state.trained.params, condition)
    reward = state.judge(x0, condition)
    advantage = advantages.group(in_groups(reward, config)).reshape(-1)
    share = shares(keys["shares"], len(x0), config.minibatches).reshape(-1)
    count = jnp.clip(jnp.ceil(share * model.length), 1, model.length).astype(jnp.int32)
    hidden = masking.counted(keys["masks"], count, model.length)
    # One inner update after the other: the rows of a minibatch lie side by side.
    shown, target, judged = (jnp.concatenate([x] * config.minibatches) for x in (condition, x0, advantage))
    masked = masking.hide(target, hidden, model.vocabulary)
    rows = tokens.rows_of(
        state.trained.params, shown, masked[:, None], target[:, None], judged[:, None], model
    )
    return rows, {"reward": jnp.mean(reward)}


@register(
    "alignment",
    "unigrpo",
    UniGRPOConfig,
    presets_of(UniGRPOConfig(kl_weight=1.0, learning_rate=2e-3), 200, 8),
    title="UniGRPO",
    paper="arXiv 2505.15809",
    idea="of tokens: GRPO on masked ones alone; a larger share is masked from one inner update to the next",
    departures="the divergence of a masked token is exact, where the authors estimate it",
    tokens=True,
)
@lru_cache
def unigrpo(config: UniGRPOConfig, model: TokenModel) -> Learner:
    """UniGRPO of `model`. Equal arguments give the same learner."""
    return aligned(_collect, tokens.loss, config, tokens.checked(config, model), shuffle=False)
