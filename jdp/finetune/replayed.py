"""What fine-tuners with a buffer share: SAC's settings, and the steps of chunks that they learn from."""

from dataclasses import dataclass, replace
from typing import TypeVar

import jax.numpy as jnp
from jax import Array

from jdp.agents.sac import SACConfig
from jdp.data.chunked import ChunkDraw
from jdp.errors import UserError
from jdp.finetune import base as bases
from jdp.learning.acting import OffPolicyConfig
from jdp.types import PyTree, Spec, Transition

C = TypeVar("C", bound=SACConfig)


@dataclass(frozen=True)
class ReplayedConfig(SACConfig):
    """SAC, where observations are standardised as the base policy standardises them."""

    acting: OffPolicyConfig = OffPolicyConfig()  # noqa: RUF009 (immutable)
    """Steps, buffer and updates; steps are chunks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalise_observations:
            raise UserError(
                f"{type(self).__name__}: observations are standardised as the base policy does it: "
                "leave normalise_observations out"
            )


def of_chunks(config: C, execute: int) -> C:
    """`config` with the discount of a chunk of `execute` actions, whose rewards are summed as they are."""
    return replace(config, discount=config.discount**execute)


def seen(spec: Spec, actions: int) -> Spec:
    """What networks know: observations and goals as one `[O + G]`, and `actions` of any kind."""
    return Spec(spec.observation_dim + len(spec.goal), actions)


def draw(config: ReplayedConfig, spec: Spec, actions: int, execute: int) -> ChunkDraw:
    """The steps of the buffer, and of a dataset where `config.acting` mixes it in.

    Raises:
        UserError: if that is asked for in a task with goals: rows of a dataset have none.
    """
    if config.acting.offline_share and spec.goal:
        raise UserError(
            f"offline_share is {config.acting.offline_share}, but {spec.env_id} has goals, and rows of a "
            "dataset do not say which they had: set it to 0"
        )
    whole = seen(spec, actions)
    return ChunkDraw(whole.observation_dim, whole.action_dim, execute=execute)


def nothing(spec: Spec, actions: int) -> Transition:
    """One step of the right shapes, of which learning starts."""
    whole = seen(spec, actions)
    observation, none = jnp.zeros((1, whole.observation_dim)), jnp.zeros(1)
    return Transition(observation, jnp.zeros((1, actions)), none, observation, none)


def shown(batch: Transition, base: PyTree, spec: Spec) -> Transition:
    """`batch` with observations and goals `[B, O + G]` as the policy of state `base` standardises them."""
    o = spec.observation_dim

    def one(x: Array) -> Array:
        return bases.shown(base, x[:, :o], x[:, o:], spec)

    return batch._replace(observation=one(batch.observation), next_observation=one(batch.next_observation))
