"""What diffusion world models denoise: standardised changes of the observation, rewards, terminal flags."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.normalise import Affine, fit_affine
from jdp.types import Transition
from jdp.world_models.history import History, as_history
from jdp.world_models.termination import Rule


class Statistics(NamedTuple):
    """Means and standard deviations of the dataset; of constants the deviation is 1."""

    observation_mean: Array  # [O]
    observation_std: Array  # [O]
    delta_mean: Array  # [O], of next observation - observation
    delta_std: Array  # [O]
    reward_mean: Array  # []
    reward_std: Array  # []
    action_mean: Array  # [A]
    action_std: Array  # [A]

    @property
    def observation(self) -> Affine:
        """`[O]`."""
        return Affine(self.observation_mean, self.observation_std)

    @property
    def delta(self) -> Affine:
        """`[O]`."""
        return Affine(self.delta_mean, self.delta_std)

    @property
    def action(self) -> Affine:
        """`[A]`."""
        return Affine(self.action_mean, self.action_std)


def statistics(data: Transition | History) -> Statistics:
    """Of a dataset with leading axis `[N]`; actions count as they are taken, without those before."""
    data = as_history(data)
    observation = data.observations[:, -1]
    reward = fit_affine(data.reward[:, None])
    return Statistics(
        *fit_affine(observation),
        *fit_affine(data.next_observation - observation),
        reward.mean[0],
        reward.std[0],
        *fit_affine(data.actions[:, -1]),
    )


def encode_change(s: Statistics, observation: Array, next_observation: Array) -> Array:
    """`[B, O]`, the standardised change of the observation."""
    return s.delta(next_observation - observation)


def encode_outcome(s: Statistics, step: History, *, flag: bool) -> Array:
    """`[B, O + 1]`, one more with the `flag`: standardised change, standardised reward, raw terminal flag."""
    parts = [
        encode_change(s, step.observations[:, -1], step.next_observation),
        ((step.reward - s.reward_mean) / s.reward_std)[:, None],
    ]
    return jnp.concatenate([*parts, step.terminal[:, None]] if flag else parts, axis=-1)


def decode_outcome(
    s: Statistics, x: Array, observation: Array, action: Array, rule: Rule | None
) -> tuple[Array, Array, Array]:
    """Next observation `[B, O]`, reward `[B]` and terminal `[B]` (0 or 1), of what `encode_outcome` made.

    The terminal is by `rule`, or where there is none by the generated flag: above 1/2.
    """
    o = observation.shape[-1]
    following = observation + s.delta.inverse(x[:, :o])
    reward = x[:, o] * s.reward_std + s.reward_mean
    terminal = x[:, o + 1] > 0.5 if rule is None else rule(observation, action, following)
    return following, reward, terminal.astype(x.dtype)
