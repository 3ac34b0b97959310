"""Whose merit it was: what a rollout of segments teaches the two levels of a planner, by a critic of each."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import Array

from jdp.errors import check_choices
from jdp.finetune.actor_critic import FineTuneConfig, Improved
from jdp.finetune.advantages import TwoLevels, Values, hierarchical
from jdp.learning.ppo import advantages
from jdp.types import Rollout, Spec


@dataclass(frozen=True)
class CreditConfig(FineTuneConfig):
    """Settings of advantages of two levels."""

    credit: Literal["hierarchical", "flat"] = "hierarchical"
    """Whose advantages: each level's own, or those of segments for both."""
    high_trace: float = 0.95
    """Lambda of the high level's advantages; `trace` is the low level's, and that of flat ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)


def values(state: Improved, seen: Array, below: Array, config: CreditConfig) -> Array:
    """`[..., 2]`, what the critics say of `seen` `[..., O + G]`, and under the subgoals of `below`."""
    net, critics = config.critic(), state.trained.params["critic"]
    found = [net.apply(critics[name], x) for name, x in (("high", seen), ("low", below))]
    return state.targets.affine().inverse(jnp.concatenate(found, axis=-1))


def judged(
    state: Improved, rollout: Rollout, config: CreditConfig, spec: Spec, jump: int
) -> tuple[TwoLevels, Array, Array]:
    """Advantages `[T, N]`; what the critics are shown of the states `[T, N, ...]`, and with subgoals.

    Args:
        rollout: of segments of `jump` steps each, with the subgoal of each as its plan.
    """
    scale = state.base.scale
    assert rollout.decision.plan is not None
    subgoal = scale.observation(rollout.decision.plan.subgoal[:, :, 0])

    def shown(observation: Array) -> Array:
        return jnp.concatenate([scale.observation(observation), scale.goal(rollout.goal, spec)], axis=-1)

    here, there = shown(rollout.observation), shown(rollout.next_observation)
    below = jnp.concatenate([here, subgoal], axis=-1)
    now = values(state, here, below, config)
    after = values(state, there, jnp.concatenate([there, subgoal], axis=-1), config)
    ends = {"terminal": rollout.terminal, "ended": rollout.ended}
    discount = config.discount**jump
    if config.credit == "flat":
        rows = rollout.reward, now[..., 0], after[..., 0]
        found = advantages(*rows, **ends, discount=discount, trace=config.trace)
        return TwoLevels(found, found), here, below
    # Within a segment of the high level the next subgoal is that of the next row; where the rollout ends, as
    # if subgoals were drawn anew there.
    following = jnp.concatenate([now[1:, :, 1], after[-1:, :, 0]])
    decided = rollout.decision.decided
    found = hierarchical(
        rollout.reward,
        Values(now[..., 0], after[..., 0]),
        Values(now[..., 1], following),
        switch=jnp.concatenate([decided, jnp.ones_like(decided[:1])]),
        **ends,
        discount=discount,
        high_trace=config.high_trace,
        low_trace=config.trace,
    )
    return found, here, below


def among(advantage: Array, where: Array) -> Array:
    """Standardised among the rows `where`, 0 elsewhere."""
    share = jnp.mean(where.astype(jnp.float32)) + 1e-8
    mean = jnp.mean(jnp.where(where, advantage, 0.0)) / share
    apart = jnp.where(where, advantage - mean, 0.0)
    return apart / (jnp.sqrt(jnp.mean(jnp.square(apart)) / share) + 1e-8)
