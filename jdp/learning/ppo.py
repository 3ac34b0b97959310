"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347): advantages, surrogate, epochs.

What every method of on-policy gradients shares: of an actor it knows a loss of minibatches alone. Details as
in the study of Huang et al. (2022, "The 37 implementation details of PPO").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.errors import check_settings
from jdp.learning.optimiser import Trained, descend
from jdp.learning.running import RunningMoments, seen
from jdp.types import Metrics, Params, PyTree, Rollout

T = TypeVar("T")


class Passes(Protocol):
    """How a batch is learned from."""

    @property
    def epochs(self) -> int: ...
    @property
    def minibatches(self) -> int: ...
    @property
    def target_kl(self) -> float | None: ...
    def optimiser(self) -> optax.GradientTransformation: ...


MinibatchLoss = Callable[[Params, PyTree], tuple[Array, Metrics]]
# (params, rows [B, ...]) -> (scalar, metrics), of which "approximate_kl" [] may stop the epochs


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the surrogate and its epochs; the defaults are those of the paper's MuJoCo runs."""

    discount: float = 0.99
    """Of a step of the task."""
    trace: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip: float = 0.2
    """How far the ratio of probabilities may go from 1."""
    epochs: int = 10
    """Passes over a rollout."""
    minibatches: int = 32
    """Of an epoch."""
    learning_rate: float = 3e-4
    """Of Adam, constant."""
    grad_norm: float = 0.5
    """Longer gradients are scaled down to it."""
    value_weight: float = 0.5
    """Of the critic's loss."""
    target_kl: float | None = None
    """Updates stop for this rollout once the policy has moved further (in nats); None: never."""

    def __post_init__(self) -> None:
        check_settings(
            type(self).__name__,
            discount=(self.discount, 0, 1),
            trace=(self.trace, 0, 1),
            clip=(self.clip, 0, 1e6),
            epochs=(self.epochs, 1, 10_000),
            minibatches=(self.minibatches, 1, 1_000_000),
        )

    def optimiser(self) -> optax.GradientTransformation:
        """Adam after clipping."""
        return optax.chain(
            optax.clip_by_global_norm(self.grad_norm), optax.adam(self.learning_rate, eps=1e-5)
        )


class Advantages(NamedTuple):
    """Of every step of a rollout."""

    advantage: Array  # [T, ...]
    target: Array  # [T, ...], of the critic: advantage plus value


def advantages(
    reward: Array,
    value: Array,
    next_value: Array,
    terminal: Array,
    ended: Array,
    *,
    discount: float,
    trace: float,
) -> Advantages:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, equation 16), `[T, ...]`.

    Args:
        next_value: of the state reached, before any reset: it counts unless the step was `terminal`.
        ended: whether an episode is over after the step; nothing flows back over that.
    """
    delta = reward + discount * jnp.where(terminal, 0.0, next_value) - value
    advantage = accumulated(delta, jnp.where(ended, 0.0, discount * trace))
    return Advantages(advantage, advantage + value)


def accumulated(terms: Array, decay: Array) -> Array:
    """`found[t] = terms[t] + decay[t] found[t + 1]` of `[T, ...]`, with nothing after the last."""

    def back(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        term, decay = row
        found = term + decay * later
        return found, found

    return jax.lax.scan(back, jnp.zeros_like(terms[0]), (terms, decay), reverse=True)[1]


class Judged(NamedTuple):
    """What a critic says of a rollout."""

    advantage: Array  # [T, N]
    target: Array  # [T, N], that the critic is to learn, standardised
    moments: RunningMoments  # [1], by which it is


def judged(
    rollout: Rollout,
    moments: RunningMoments,
    value: Callable[[Array, Array], Array],
    config: PPOConfig,
    *,
    steps: int = 1,
) -> Judged:
    """Advantages of a rollout by a critic whose outputs are standardised by `moments`.

    The critic then learns its targets by moments that have seen them, which are those of its next values: so
    it never meets a scale that it was not trained in.

    Args:
        value: of observations `[T, N, O]` and goals `[T, N, G]`, `[T, N]`, standardised.
        steps: of the task in each row, of which `config.discount` is one's.
    """
    scale = moments.affine()

    def in_rewards(observation: Array) -> Array:
        return scale.inverse(value(observation, rollout.goal)[..., None])[..., 0]

    found = advantages(
        rollout.reward,
        in_rewards(rollout.observation),
        in_rewards(rollout.next_observation),
        rollout.terminal,
        rollout.ended,
        discount=config.discount**steps,
        trace=config.trace,
    )
    targets = found.target[..., None]
    moments = seen(moments, targets)
    return Judged(found.advantage, moments.affine()(targets)[..., 0], moments)


def flat(rows: T, axes: int = 2) -> T:
    """Leaves `[T, N, ...]` as `[T N, ...]`, of any number of first `axes`; those behind may be empty."""
    return jax.tree.map(lambda x: x.reshape(math.prod(x.shape[:axes]), *x.shape[axes:]), rows)


def normalised(advantage: Array) -> Array:
    """`advantage`, less its mean, over its standard deviation."""
    return (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)


def estimated_kl(log_ratio: Array) -> Array:
    """`[]`, the mean of `rho - 1 - ln rho`, never negative (Schulman 2020, "Approximating KL divergence")."""
    return jnp.mean(jnp.exp(log_ratio) - 1 - log_ratio)


def clipped_surrogate(
    log_prob: Array, old_log_prob: Array, advantage: Array, clip: Array | float
) -> tuple[Array, Metrics]:
    """Minus `mean min(rho A, clip(rho, 1 - clip, 1 + clip) A)` with `rho` the ratio of probabilities.

    All of one shape; `clip` broadcasts. The divergence is estimated by `estimated_kl`.
    """
    log_ratio = log_prob - old_log_prob
    ratio = jnp.exp(log_ratio)
    bounded = jnp.clip(ratio, 1 - clip, 1 + clip)
    loss = -jnp.mean(jnp.minimum(ratio * advantage, bounded * advantage))
    return loss, {
        "policy_loss": loss,
        "approximate_kl": estimated_kl(log_ratio),
        "clipped": jnp.mean((jnp.abs(ratio - 1) > clip).astype(jnp.float32)),
    }


def with_value_loss(
    loss: Array, metrics: Metrics, value: Array, target: Array, weight: float
) -> tuple[Array, Metrics]:
    """The surrogate's `loss` plus `weight` times the squared error of `value` `[B]` to `target` `[B]`."""
    value_loss = jnp.mean(jnp.square(value - target))
    total = loss + weight * value_loss
    return total, {"loss": total, **metrics, "value_loss": value_loss}


def epochs(
    key: Array,
    trained: Trained,
    rows: PyTree,
    loss: MinibatchLoss,
    config: Passes,
    optimiser: optax.GradientTransformation | None = None,
    *,
    shuffle: bool = True,
) -> tuple[Trained, Metrics]:
    """`config.epochs` passes over `rows` `[B, ...]` in random minibatches; the key is consumed.

    Without `shuffle` every pass takes them in their order.

    What does not fill the last minibatch is left out of that epoch. With a `target_kl` nothing is learned
    after the minibatch in which the policy had moved further. Metrics are means over the minibatches.
    """
    optimiser = optimiser or config.optimiser()
    count = len(jax.tree.leaves(rows)[0])
    size = max(count // config.minibatches, 1)
    batches = count // size

    def epoch(carry: tuple[Trained, Array], key: Array) -> Any:
        order = jax.random.permutation(key, count) if shuffle else jnp.arange(count)
        order = order[: batches * size].reshape(batches, size)

        def one(carry: tuple[Trained, Array], places: Array) -> Any:
            trained, going = carry
            taken = jax.tree.map(lambda x: x[places], rows)
            learned, metrics = descend(optimiser, trained, loss, taken)
            kept = jax.tree.map(lambda new, old: jnp.where(going, new, old), learned, trained)
            if config.target_kl is not None:
                going = going & (metrics["approximate_kl"] <= config.target_kl)
            return (kept, going), metrics

        return jax.lax.scan(one, carry, order)

    begun = (trained, jnp.ones((), bool))
    (trained, _), metrics = jax.lax.scan(epoch, begun, jax.random.split(key, config.epochs))
    return trained, jax.tree.map(jnp.mean, metrics)
