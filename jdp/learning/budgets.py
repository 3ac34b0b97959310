"""How much computing a state needs: learned from records of what sufficed (after HBPO, arXiv 2507.15844).

A budget is a number of denoising steps, of candidates, of anything that can be more or less. Of each of K
budgets a small network says how often it succeeds; the cheapest that is nearly as good as the best is taken.
HBPO trains one policy by policy gradients to spend less (its reward is `jdp.finetune.advantages
.budget_reward`); here what acts is trained already, and only the choice is learned.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data.normalise import Affine
from jdp.errors import check_settings
from jdp.learning.observations import observation_affine
from jdp.learning.optimiser import begin, descend
from jdp.networks.mlp import mlp
from jdp.types import Metrics, Network, Params, named_keys


@dataclass(frozen=True)
class BudgetConfig:
    """Settings of the choice."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network."""
    learning_rate: float = 3e-3
    """Of Adam."""
    updates: int = 500
    """Each on `batch_size` records."""
    batch_size: int = 256
    """Records of an update."""
    slack: float = 0.05
    """How much less often than the best budget a cheaper one may succeed."""

    def __post_init__(self) -> None:
        check_settings("BudgetConfig", updates=(self.updates, 1, 1 << 30), slack=(self.slack, 0, 1))
        check_settings("BudgetConfig", batch_size=(self.batch_size, 1, 1 << 30))

    def network(self, budgets: int) -> Network:
        """Of standardised states `[B, D]` to logits `[B, budgets]`."""
        return mlp((*self.hidden, budgets), activation="mish")


class Records(NamedTuple):
    """What was tried, in any order and as often as one likes."""

    state: Array  # [N, D], what the choice sees: observations and goals
    budget: Array  # [N] int32, which one
    success: Array  # [N], 0 or 1, or a share


class Budgets(NamedTuple):
    """What was learned of them."""

    params: Params
    standardise: Affine  # of states, [D]


def learn_budgets(key: Array, records: Records, budgets: int, config: BudgetConfig) -> Budgets:
    """The chances of `budgets` = K budgets, by cross-entropy on records; the key is consumed."""
    keys, network, optimiser = (
        named_keys(key, "init", "rows"),
        config.network(budgets),
        optax.adam(config.learning_rate),
    )
    standardise = observation_affine(records.state)
    seen = standardise(records.state)

    def loss(params: Params, at: Array) -> tuple[Array, Metrics]:
        logits = network.apply(params, seen[at])
        own = jnp.take_along_axis(logits, records.budget[at][:, None], axis=1)[:, 0]
        found = jnp.mean(optax.sigmoid_binary_cross_entropy(own, records.success[at]))
        return found, {"loss": found}

    def one(trained, key):
        at = jax.random.randint(key, (config.batch_size,), 0, len(seen))
        return descend(optimiser, trained, loss, at)

    first = begin(optimiser, network.init(keys["init"], seen[:1]))
    trained, _ = jax.lax.scan(one, first, jax.random.split(keys["rows"], config.updates))
    return Budgets(trained.params, standardise)


def chances(budgets: Budgets, state: Array, count: int, config: BudgetConfig) -> Array:
    """`[B, K]`, how often each of `count` = K budgets succeeds at states `[B, D]`."""
    return jax.nn.sigmoid(config.network(count).apply(budgets.params, budgets.standardise(state)))


def cheapest(chances: Array, slack: float) -> Array:
    """`[B]` int32, the first budget of `chances` `[B, K]` that is at most `slack` below the best.

    Budgets stand in the order of their cost, the cheapest first.
    """
    best = jnp.max(chances, axis=-1, keepdims=True)
    return jnp.argmax(chances >= best - slack, axis=-1).astype(jnp.int32)
