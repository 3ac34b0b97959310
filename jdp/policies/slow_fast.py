"""What slow-fast policies share: chunks begin rarely, a channel of the observation is seen at every step."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.normalise import Affine
from jdp.policies import chunks
from jdp.policies.chunks import LongChunkConfig
from jdp.policies.relabelled import imitated
from jdp.tasks.groups import group
from jdp.types import Segments, Spec


@dataclass(frozen=True)
class SlowFastConfig(LongChunkConfig):
    """A chunk for what is seen when it begins, and a channel that is seen while it is executed."""

    fast: str = "velocity"
    """Group of the observation that is seen at every step, such as force; --groups names groups."""


class Lesson(NamedTuple):
    """What there is to imitate, standardised."""

    seen: Array  # [B, C], when the chunk begins: the whole observation, and the goal
    channel: Array  # [B, T, F], when each of its actions was taken
    chunk: Array  # [B, T * A], the actions
    keep: Array  # [B] bool, the rows that may be imitated


def channel_width(config: SlowFastConfig, spec: Spec) -> int:
    """F, entries of the fast channel.

    Raises:
        UserError: if the observation has no group of that name.
    """
    return len(group(spec, config.fast))


def channel(standardise: Affine, observation: Array, config: SlowFastConfig, spec: Spec) -> Array:
    """`[..., F]`, the fast channel of observations `[..., O]`, standardised."""
    return standardise(observation)[..., jnp.array(group(spec, config.fast))]


def lesson(batch: Segments, standardise: Affine, config: SlowFastConfig, spec: Spec) -> Lesson:
    """Of segments as the learner of chunks draws them."""
    seen, chunk = chunks.example(batch, standardise, config, spec)
    observations = batch.observation[:, config.history - 1 :][:, : config.chunk]
    return Lesson(seen, channel(standardise, observations, config, spec), chunk, imitated(batch, spec))
