"""Standardisers; and the channels of trajectories, `[observation O, pre-tanh action A, reward, terminal]`."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from jdp.data.episodes import Episodes
from jdp.data.windows import Rows, padded_rows

Array = Any  # numpy in, numpy out; jax in, jax out


SMALL = 1e-2  # data whose channels all vary by less are in small units


class Affine(NamedTuple):
    """`(x - mean) / std` over the last axis; every standardiser of the library is one."""

    mean: Array  # [D]
    std: Array  # [D]

    def __call__(self, x: Array) -> Array:
        """`[..., D]`, in the units of the task to standardised."""
        axes = tuple(range(x.ndim - 1))
        return (x - jnp.expand_dims(self.mean, axes)) / jnp.expand_dims(self.std, axes)

    def inverse(self, x: Array) -> Array:
        """`[..., D]`, standardised to the units of the task."""
        axes = tuple(range(x.ndim - 1))
        return x * jnp.expand_dims(self.std, axes) + jnp.expand_dims(self.mean, axes)


def fit_affine(x: Array, *, floor: float = 1e-6, plus: float = 0.0, where: Array | None = None) -> Affine:
    """Mean and standard deviation of the rows of `x` `[..., D]`.

    Args:
        floor: a channel whose std is at most `floor * max(|mean|, unit)` is constant and keeps std 1.
        plus: `plus * unit` is added to the std; TD3+BC (arXiv 2106.06860, section 5) takes 1e-3 and no floor.
        where: `[...]` bool, which rows count (all).

    The unit is 1, and in data whose channels all vary by less than .01 (metres that should be millimetres)
    the largest standard deviation: floors follow the scale of the data.
    """
    rows = jnp.asarray(x).reshape(-1, x.shape[-1])
    count = None if where is None else jnp.asarray(where).reshape(-1, 1)
    mean, std = jnp.mean(rows, axis=0, where=count), jnp.std(rows, axis=0, where=count)
    if plus:
        return Affine(mean, std + plus * unit_of(std))
    return Affine(mean, jnp.where(std > floor * jnp.maximum(unit_of(std), jnp.abs(mean)), std, 1.0))


def unit_of(std: Array) -> Array:
    """`[]`, what counts as 1 in data of standard deviations `std` `[D]` (see `fit_affine`)."""
    xp = np if isinstance(std, np.ndarray) else jnp
    top = xp.max(std)
    return xp.where((top > 0) & (top < SMALL), top, xp.ones_like(top))


def identity(dim: int) -> Affine:
    """Coordinates that stay as they are, `[dim]`."""
    return Affine(jnp.zeros(dim), jnp.ones(dim))


@struct.dataclass
class Normaliser:
    """Per-channel affine map; actions pass through `arctanh` first. `D = O + A + 2`.

    The terminal flag stays 0/1 (mean 0, std 1): standardising a flag of probability 1/1000 would
    put its two values 30 apart. Works on numpy arrays and, inside `jit`, on jax arrays.
    """

    mean: Array  # [D] float32
    std: Array  # [D] float32
    observation_dim: int = struct.field(pytree_node=False)
    action_dim: int = struct.field(pytree_node=False)
    clip: float = struct.field(pytree_node=False, default=0.999)

    def encode(self, observation: Array, action: Array, reward: Array, terminal: Array) -> Array:
        """`[..., O], [..., A], [...], [...] -> [..., D]`."""
        xp = self._module(observation)
        return xp.concatenate(
            [
                self.normalise_observation(observation),
                self.encode_action(action),
                self.encode_reward(reward)[..., None],
                terminal[..., None],
            ],
            axis=-1,
        )

    def decode(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """`[..., D] -> observation [..., O], action [..., A], reward [...], raw flag [...]`.

        The flag is near 0 or 1 and not rounded; the action lies within (-1, 1).
        """
        o, a = self.observation_dim, self.action_dim
        return (
            self.observation(x[..., :o]),
            self.decode_action(x[..., o : o + a]),
            self.decode_reward(x[..., o + a]),
            x[..., o + a + 1],
        )

    def normalise_observation(self, observation: Array) -> Array:
        """`[..., O]`, in units of the dataset to standardised."""
        mean, std = self._channels(0, self.observation_dim, observation)
        return (observation - mean) / std

    def observation(self, normalised: Array) -> Array:
        """`[..., O]`, the inverse of `normalise_observation`."""
        mean, std = self._channels(0, self.observation_dim, normalised)
        return normalised * std + mean

    def encode_action(self, action: Array) -> Array:
        """`[..., A]` within [-1, 1] to the standardised `arctanh(clip(action, -clip, clip))`."""
        xp = self._module(action)
        mean, std = self._channels(self.observation_dim, self.action_dim, action)
        return (xp.arctanh(xp.clip(action, -self.clip, self.clip)) - mean) / std

    def pre_tanh(self, normalised: Array) -> Array:
        """`[..., A]`, standardised action channels to `u`, where `action = tanh(u)`."""
        mean, std = self._channels(self.observation_dim, self.action_dim, normalised)
        return normalised * std + mean

    def decode_action(self, normalised: Array) -> Array:
        """`[..., A]`, standardised action channels to actions within (-1, 1)."""
        return self._module(normalised).tanh(self.pre_tanh(normalised))

    def encode_reward(self, reward: Array) -> Array:
        """`[...]`, in units of the dataset to standardised."""
        return (reward - self.mean[-2]) / self.std[-2]

    def decode_reward(self, normalised: Array) -> Array:
        """`[...]`, the inverse of `encode_reward`."""
        return normalised * self.std[-2] + self.mean[-2]

    def _channels(self, start: int, count: int, like: Array) -> tuple[Array, Array]:
        # Leading axes are written out, for the tests run with rank promotion forbidden.
        shape = (1,) * (like.ndim - 1) + (count,)
        stop = start + count
        return self.mean[start:stop].reshape(shape), self.std[start:stop].reshape(shape)

    def _module(self, x: Array) -> Any:
        return np if isinstance(x, np.ndarray) and isinstance(self.mean, np.ndarray) else jnp


def fit_normaliser(episodes: Episodes, clip: float = 0.999) -> Normaliser:
    """Mean and std of observation, `arctanh(clip(action))` and reward over all rows of the dataset.

    Over rows and not over windows, so that the horizon does not change the scale. A constant channel
    keeps std 1.
    """
    u = np.arctanh(np.clip(episodes.actions, -clip, clip))
    parts = (episodes.observations, u, episodes.rewards[:, None])
    mean = np.concatenate([p.mean(0, dtype=np.float64) for p in parts] + [np.zeros(1)])
    std = np.concatenate([p.std(0, dtype=np.float64) for p in parts] + [np.ones(1)])
    unit = unit_of(std[: episodes.spec.observation_dim])
    scale = np.concatenate([np.full(episodes.spec.observation_dim, unit), np.ones(len(u[0])), [0.0, 1.0]])
    std = np.where(std > 1e-7 * np.maximum(scale, np.abs(mean)), std, 1.0)
    return Normaliser(
        mean=mean.astype(np.float32),
        std=std.astype(np.float32),
        observation_dim=episodes.spec.observation_dim,
        action_dim=episodes.spec.action_dim,
        clip=clip,
    )


def training_rows(episodes: Episodes, normaliser: Normaliser) -> tuple[np.ndarray, Rows]:
    """The encoded rows `[M, D]` float32 that `windows` points at, and the rows they encode.

    A pad row holds the observation that followed the terminal, the flag 1, and ZERO in the
    normalised action and reward channels: the mean, which needs no signal to be generated.
    """
    rows = padded_rows(episodes)
    packed = np.array(normaliser.encode(rows.observation, rows.action, rows.reward, rows.terminal))
    o, a = normaliser.observation_dim, normaliser.action_dim
    packed[rows.pad, o : o + a + 1] = 0.0
    return packed, rows
