"""What diffusion world models denoise: standardised changes of the observation, rewards, terminal flags."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.types import AnyArray, Transition
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


def _moments(rows: AnyArray) -> tuple[Array, Array]:
    rows = jnp.asarray(rows, jnp.float32)
    mean, std = jnp.mean(rows, axis=0), jnp.std(rows, axis=0)
    return mean, jnp.where(std > 1e-6 * jnp.maximum(1.0, jnp.abs(mean)), std, 1.0)


def statistics(data: Transition | History) -> Statistics:
    """Of a dataset with leading axis `[N]`; actions count as they are taken, without those before."""
    data = as_history(data)
    observation = data.observations[:, -1]
    return Statistics(
        *_moments(observation),
        *_moments(data.next_observation - observation),
        *_moments(data.reward),
        *_moments(data.actions[:, -1]),
    )


def _like(channel: Array, x: Array) -> Array:
    return jnp.broadcast_to(channel, x.shape)


def standardise(x: Array, mean: Array, std: Array) -> Array:
    """`[..., D]`, in units of `std` `[D]` from `mean` `[D]`."""
    return (x - _like(mean, x)) / _like(std, x)


def restore(x: Array, mean: Array, std: Array) -> Array:
    """The inverse of `standardise`."""
    return x * _like(std, x) + _like(mean, x)


def encode_change(s: Statistics, observation: Array, next_observation: Array) -> Array:
    """`[B, O]`, the standardised change of the observation."""
    return standardise(next_observation - observation, s.delta_mean, s.delta_std)


def encode_outcome(s: Statistics, step: History, *, flag: bool) -> Array:
    """`[B, O + 1]`, one more with the `flag`: standardised change, standardised reward, raw terminal flag."""
    parts = [
        encode_change(s, step.observations[:, -1], step.next_observation),
        standardise(step.reward, s.reward_mean, s.reward_std)[:, None],
    ]
    return jnp.concatenate([*parts, step.terminal[:, None]] if flag else parts, axis=-1)


def decode_outcome(
    s: Statistics, x: Array, observation: Array, action: Array, rule: Rule | None
) -> tuple[Array, Array, Array]:
    """Next observation `[B, O]`, reward `[B]` and terminal `[B]` (0 or 1), of what `encode_outcome` made.

    The terminal is by `rule`, or where there is none by the generated flag: above 1/2.
    """
    o = observation.shape[-1]
    following = observation + restore(x[:, :o], s.delta_mean, s.delta_std)
    reward = restore(x[:, o], s.reward_mean, s.reward_std)
    terminal = x[:, o + 1] > 0.5 if rule is None else rule(observation, action, following)
    return following, reward, terminal.astype(x.dtype)
