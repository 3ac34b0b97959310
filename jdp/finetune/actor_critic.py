"""What fine-tuners by PPO share: an actor and a critic beside a base policy that stays, and their update."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jdp.finetune import base as bases
from jdp.learning.optimiser import Trained, begin, copied
from jdp.learning.ppo import MinibatchLoss, PPOConfig, epochs, flat, judged, with_value_loss
from jdp.learning.running import RunningMoments, no_moments
from jdp.networks.mlp import mlp
from jdp.types import (
    Metrics,
    Network,
    Params,
    PyTree,
    Rollout,
    Spec,
)


@dataclass(frozen=True)
class FineTuneConfig(PPOConfig):
    """PPO of an actor and a critic with rates of their own."""

    critic_learning_rate: float = 1e-3
    """Of the critic's Adam, constant."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of the critic."""

    def optimiser(self) -> optax.GradientTransformation:
        """Adam for the actor and for the critic, after gradients of both were cut."""
        both = optax.multi_transform(
            {"actor": optax.adam(self.learning_rate), "critic": optax.adam(self.critic_learning_rate)},
            {"actor": "actor", "critic": "critic"},
        )
        return optax.chain(optax.clip_by_global_norm(self.grad_norm), both)

    def critic(self) -> Network:
        """Of what is shown of a state, `[..., O + G]` to `[..., 1]`."""
        return mlp((*self.critic_hidden, 1), activation="mish")


class Improved(NamedTuple):
    """What learns, and the policy that it starts from."""

    trained: Trained  # parameters {"actor", "critic"}
    base: PyTree  # the state of the base policy, as it was
    targets: RunningMoments  # [1], of the critic


def begin_improving(key: Array, actor: Params, base: PyTree, config: FineTuneConfig, spec: Spec) -> Improved:
    """Before the first update; the key is consumed."""
    critic = config.critic().init(key, jnp.zeros(spec.observation_dim + len(spec.goal)))
    trained = begin(config.optimiser(), {"actor": actor, "critic": critic})
    return Improved(trained, copied(base), no_moments(1))


def improve(
    key: Array,
    state: Improved,
    rollout: Rollout,
    config: FineTuneConfig,
    *,
    spec: Spec,
    rows: Callable[[Array, Array, Array], PyTree],
    loss: MinibatchLoss,
    steps: int = 1,
) -> tuple[Improved, Metrics]:
    """One update of actor and critic on a rollout `[T, N]`; the key is consumed.

    Args:
        rows: of what is shown `[T N, C]`, advantages and the critic's targets, standardised, `[T N]`: what
            minibatches are drawn from.
        loss: of a minibatch of these rows; see `critics_loss`.
        steps: of the task in a row of the rollout.
    """
    lead, critic = rollout.reward.shape, config.critic()

    def seen(observation: Array, goal: Array) -> Array:
        return bases.shown(state.base, flat(observation), flat(goal), spec)

    def value(observation: Array, goal: Array) -> Array:
        return critic.apply(state.trained.params["critic"], seen(observation, goal))[:, 0].reshape(lead)

    found = judged(rollout, state.targets, value, config, steps=steps)
    advantage, target = flat((found.advantage, found.target))
    taken = rows(seen(rollout.observation, rollout.goal), advantage, target)
    trained, metrics = epochs(key, state.trained, taken, loss, config)
    return Improved(trained, state.base, found.moments), metrics


def critics_loss(
    loss: Array, metrics: Metrics, params: Params, shown: Array, target: Array, config: FineTuneConfig
) -> tuple[Array, Metrics]:
    """The actor's `loss` and the critic's, at rows `[B, C]` with standardised targets `[B]`."""
    value = config.critic().apply(params["critic"], shown)[:, 0]
    return with_value_loss(loss, metrics, value, target, config.value_weight)
