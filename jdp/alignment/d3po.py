"""D3PO (Yang et al. 2023, arXiv 2311.13231): preferences between chains, step by step."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment import surrogates
from jdp.alignment.chain import DrawnConfig, density, drawn, sample
from jdp.alignment.learner import Aligned, aligned, each, in_groups
from jdp.alignment.models import Model
from jdp.alignment.pairs import first_wins
from jdp.alignment.presets import presets_of
from jdp.errors import UserError
from jdp.finetune.chain import Moves, moves
from jdp.learning.ppo import flat
from jdp.registry import register
from jdp.types import Learner, Metrics, Params, named_keys


@dataclass(frozen=True)
class D3POConfig(DrawnConfig):
    """Settings of D3PO; `kl_weight` is its beta."""

    group: int = 2
    """Chains for each condition, which are compared: two."""
    clip: float = 0.1
    """How far the ratio of a step's densities may go from 1."""
    kl_weight: float = 0.1
    """Beta: small ones let the model go far from what it was."""
    noise: bool = True
    """Whether the labeller errs as Bradley and Terry's does; else the higher reward always wins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group != 2:
            raise UserError(f"D3POConfig: chains are compared in pairs: group is 2, not {self.group}")


class Rows(NamedTuple):
    """Steps of the two chains of pairs, `[R, ...]`."""

    winner: Moves
    loser: Moves


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: D3POConfig, model: Model
) -> tuple[Rows, Metrics]:
    keys, condition = named_keys(key, "chain", "label"), each(batch, config)
    states = sample(keys["chain"], state.trained.params, condition, config, model)
    reward = in_groups(state.judge(states[-1], condition), config)  # [P, 2]
    lead = reward[:, 0] - reward[:, 1]
    wins = first_wins(keys["label"], lead) if config.noise else lead > 0
    second = 1 - wins.astype(jnp.int32)
    place = 2 * jnp.arange(len(reward)) + second
    found = moves(states, condition)

    def of(places: Array) -> Moves:
        return flat(jax.tree.map(lambda x: x[:, places], found))

    other = place + 1 - 2 * second
    return Rows(of(place), of(other)), {"reward": jnp.mean(reward)}


def _loss(
    params: Params, rows: Rows, *, reference: Params, config: D3POConfig, model: Model
) -> tuple[Array, Metrics]:
    """`-log sigmoid(beta (log rho_w - log rho_l))`, rho: clipped ratios to the model as it was."""
    low, high = jnp.log(1 - config.clip), jnp.log(1 + config.clip)

    def ratio(one: Moves) -> Array:
        ours, theirs = (
            density(drawn(p, one, config, model), one.following, config, model) for p in (params, reference)
        )
        return jnp.clip(ours - theirs, low, high)

    return surrogates.preferred(ratio(rows.winner) - ratio(rows.loser), config.kl_weight)


@register(
    "alignment",
    "d3po",
    D3POConfig,
    presets_of(
        D3POConfig(learning_rate=1e-4),
        200,
        128,
        run=D3POConfig(learning_rate=3e-5),
        paper=D3POConfig(learning_rate=3e-5),
    ),
    title="D3PO",
    paper="arXiv 2311.13231",
    idea="preferences between two chains, a step of one against the same step of the other",
    departures="a reward labels the pairs, with the errors of Bradley and Terry's rule",
)
@lru_cache
def d3po(config: D3POConfig, model: Model) -> Learner:
    """D3PO of `model`. Equal arguments give the same learner."""
    return aligned(_collect, _loss, config, model)
