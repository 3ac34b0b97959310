"""What fine-tuners with a buffer share: SAC's settings, and the steps of chunks that they learn from."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jax import Array

from jdp.agents.sac import SACConfig
from jdp.data.chunked import ChunkDraw
from jdp.errors import UserError
from jdp.finetune import base as bases
from jdp.finetune.base import View
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


def view(base: PyTree, both: Array, spec: Spec) -> View:
    """Observations and goals `both` `[B, O + G]` of the buffer, and what the policy of `base` is shown."""
    o = spec.observation_dim
    return bases.view(base, both[:, :o], both[:, o:], spec)


def shown(batch: Transition, base: PyTree, spec: Spec) -> Transition:
    """`batch` with observations and goals `[B, O + G]` as the policy of state `base` standardises them."""
    now, following = (view(base, x, spec).shown for x in (batch.observation, batch.next_observation))
    return batch._replace(observation=now, next_observation=following)


def cpu(updates: int) -> dict[str, Any]:
    """What presets of two cores have in common: few updates, fast rates and targets, little entropy."""
    rates = dict.fromkeys(("actor_learning_rate", "critic_learning_rate", "alpha_learning_rate"), 1e-3)
    acting = OffPolicyConfig(16, updates=updates, batch_size=128, capacity=50_000, warm_up=1_000)
    return {"acting": acting, "initial_alpha": 0.003, "tau": 0.02, **rates}


BRIEF = OffPolicyConfig(4, batch_size=8, capacity=100, warm_up=8)  # of presets for the plumbing
