"""The coordinates of segments: standardised observations, actions, goals and values."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.normalise import Affine, fit_affine
from jdp.data.segments import SegmentRows, absorbing
from jdp.diffusion.paths import integrated
from jdp.types import Spec

FLOOR = 1e-4  # of a standard deviation beside the mean: a constant channel stays where it is


class Scale(NamedTuple):
    """Statistics of a dataset, fixed when training begins."""

    observation: Affine  # [O]
    action: Affine  # [A]
    value: Affine  # [1], of discounted returns to go

    @property
    def sigma_data(self) -> float:
        """Of plans, which are standardised."""
        return 1.0

    def goal(self, goal: Array, spec: Spec) -> Array:
        """`[..., G]`, a goal standardised as the observation's entries that it prescribes."""
        entries = jnp.array(spec.goal, jnp.int32)
        return Affine(self.observation.mean[entries], self.observation.std[entries])(goal)

    def rows(self, x: Array, present: Array | None = None) -> tuple[Array, Array]:
        """Observations `[B, T, O]` and actions `[B, T', A]` of plans `[B, T, O + E]`: T' = T E / A, or 0."""
        del present  # it is row 0
        dim, actions = self.observation.mean.shape[0], self.action.mean.shape[0]
        action = jnp.zeros((x.shape[0], 0, actions))
        if x.shape[-1] > dim:
            action = self.action.inverse(x[..., dim:].reshape(x.shape[0], -1, actions))
        return self.observation.inverse(x[..., :dim]), action


class ActionScale(NamedTuple):
    """The coordinates of policies: standardised observations, and actions within [-1, 1] as they are."""

    observation: Affine  # [O]
    action: Affine  # [A], the identity
    sigma_data: float  # standard deviation that the denoiser takes actions to have

    def rows(self, x: Array, present: Array) -> tuple[Array, Array]:
        """The present `[B, 1, O]` and the actions `[B, T, A]`."""
        return present[:, None], x


class StepScale(NamedTuple):
    """As `ActionScale`, of actions that are diffused as the steps from one to the next."""

    observation: Affine  # [O]
    action: Affine  # [A], the identity
    sigma_data: float  # standard deviation that the denoiser takes steps to have

    def rows(self, x: Array, present: Array) -> tuple[Array, Array]:
        """The present `[B, 1, O]` and the actions `[B, T, A]` that the steps lead to."""
        return present[:, None], integrated(x)


class JointScale(NamedTuple):
    """As `ActionScale`, of rows `[B, 1, D]` that hold a chunk of actions, and then what it leads to."""

    observation: Affine  # [O]
    action: Affine  # [A], the identity
    sigma_data: float  # standard deviation that the denoiser takes entries to have
    outcome: Affine  # [E], of what it leads to

    def rows(self, x: Array, present: Array) -> tuple[Array, Array]:
        """The present `[B, 1, O]` and the actions `[B, T, A]`."""
        actions = x[:, 0, : x.shape[-1] - self.outcome.mean.shape[0]]
        return present[:, None], actions.reshape(x.shape[0], -1, self.action.mean.shape[0])


def fit_scale(rows: SegmentRows) -> Scale:
    """The statistics of a dataset's rows."""
    value = fit_affine(jnp.asarray(rows.value)[..., None], floor=FLOOR, where=~absorbing(rows))
    observation, action = (fit_affine(x, floor=FLOOR) for x in (rows.observation, rows.action))
    return Scale(observation, action, value)


def position(spec: Spec) -> Array:
    """`[P]`, the entries of an observation that say where it is: the goal's, or all."""
    return jnp.array(spec.goal or range(spec.observation_dim), jnp.int32)


class Span(NamedTuple):
    """The least and the greatest value of a dataset."""

    low: Array  # []
    high: Array  # []

    def __call__(self, value: Array) -> Array:
        """`[...]`, the least to 0, the greatest to 1."""
        return (value - self.low) / (self.high - self.low)

    def inverse(self, share: Array) -> Array:
        """`[...]`, 0 to the least, 1 to the greatest."""
        return self.low + share * (self.high - self.low)


def fit_span(rows: SegmentRows) -> Span:
    """The range of the values of a dataset's rows; of one value only, it ends 1 above."""
    value, real = jnp.asarray(rows.value), ~absorbing(rows)
    low = jnp.min(value, where=real, initial=jnp.inf)
    high = jnp.max(value, where=real, initial=-jnp.inf)
    return Span(low, jnp.where(high - low > FLOOR, high, low + 1.0))


def clip_action(action: Array) -> Array:
    """Into the box [-1, 1]."""
    return jnp.clip(action, -1.0, 1.0)
