"""RTI-DP (Duan, Yin and Kragic 2025, arXiv 2508.05396): a chunk begins from the one before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError, check_settings
from jdp.learning.fitting import falling_rates
from jdp.learning.scale import clip_action
from jdp.policies import diffusion_policy
from jdp.policies.chunks import Chunks, CloneState
from jdp.policies.continued import chunks_of, continued
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.presets import presets_of
from jdp.registry import Preset, Task, register
from jdp.types import (
    Act,
    Bound,
    Decision,
    Denoiser,
    Guide,
    Method,
    Metrics,
    Policy,
    PyTree,
    Segments,
    Spec,
    Update,
)


def warm(policy: Policy, levels: int, shift: int = 1) -> Policy:
    """`policy`, whose chunks but an episode's first are drawn from the one before, by `levels` steps.

    The last chunk, seen `shift` actions later (its last action stands for what follows), is taken to stand at
    the `levels`-th last level of the schedule, and no noise is added. `shift` actions are executed before the
    next chunk is drawn. So it stays in its mode and follows a target that drifts; of one that jumps by much
    more than the level that it begins at it knows nothing, and the spread of a mode is lost, since no noise
    comes in: of Gaussian actions of std s, `1 - s / (s^2 + sigma^2)^(1/2)` of it by a decision from level
    sigma, in small steps. (Networks are shown `alpha x`, as at that level, where the authors' are shown the
    chunk itself; `alpha` is nearly 1.)

    Args:
        policy: of a trained method that draws chunks: `diffusion_policy` or `beso`.

    Raises:
        UserError: for other policies, more levels than the schedule has, and a shift beyond the chunk.
    """
    parts = chunks_of(policy, "a warm start")
    steps, length = parts.config.sampling().steps, parts.config.chunk
    check_settings("warm start", levels=(levels, 1, steps), shift=(shift, 1, length))
    return continued(parts, Bound(_following, (("levels", levels),)), shift)


def _following(key: Array, denoiser: Denoiser, before: Array, parts: Chunks, *, levels: int) -> Array:
    return parts.config.sampling().finish(key, denoiser, before.reshape(before.shape[0], -1), levels)


@dataclass(frozen=True)
class RTIConfig(DiffusionPolicyConfig):
    """Settings of RTI-DP: diffusion policy, which decides at every step by its last levels alone.

    `warm` does so with any trained policy of chunks; only discrete entries of actions must be trained for it.
    """

    execute: int = 1
    """Actions that are executed before the next prediction, which begins so much later."""
    levels: int = 3
    """Last levels of the schedule that a chunk is drawn through, from the one before it."""
    discrete: tuple[int, ...] = ()
    """Entries of an action that take two values, as those of a gripper: a warm start must flip them."""
    discrete_scale: float = 0.1
    """How large discrete entries are learned: so small that a step at the last levels flips them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        share, levels = (self.discrete_scale, 1e-3, 1), (self.levels, 1, self.sampling_steps)
        check_settings("RTIConfig", levels=levels, discrete_scale=share)

    def scale(self, spec: Spec) -> Array:
        """`[A]`, the factors that actions are learned by.

        Raises:
            UserError: if an action has no such entry.
        """
        for entry in self.discrete:
            check_settings("RTIConfig", discrete=(entry, 0, spec.action_dim - 1))
        return jnp.ones(spec.action_dim).at[jnp.array(self.discrete, jnp.int32)].set(self.discrete_scale)


def _update(
    key: Array, state: CloneState, batch: Segments, *, update: Update, config: RTIConfig, spec: Spec
) -> tuple[CloneState, Metrics]:
    scale = config.scale(spec)[None, None]
    return update(key, state, batch._replace(action=scale * batch.action))


def _act(
    key: Array,
    state: CloneState,
    carry: PyTree,
    observation: Array,
    goal: Array,
    *,
    act: Act,
    config: RTIConfig,
    spec: Spec,
) -> tuple[PyTree, Decision]:
    carry, decision = act(key, state, carry, observation, goal)
    return carry, decision._replace(action=clip_action(decision.action / config.scale(spec)[None]))


def presets(task: Task) -> Mapping[str, Preset]:
    """The same settings for all datasets."""
    return presets_of(RTIConfig(), task)


@register(
    "policy",
    "rti",
    RTIConfig,
    presets,
    title="RTI-DP",
    paper="arXiv 2508.05396",
    idea="diffusion policy at every step: the last levels alone, from the chunk before, unnoised",
    departures="those of diffusion_policy; the last 3 of 10 Karras levels instead of 2 to 21 of 100 of DDPM",
    fit=falling_rates,
)
@lru_cache
def rti(config: RTIConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """RTI-DP as a policy; equal arguments give the same one. It trains as `diffusion_policy`.

    Raises:
        UserError: for a guide of actions with discrete entries, which it would see scaled.
    """
    if config.discrete and guide is not None:
        raise UserError("rti draws discrete entries scaled, so no guide knows them: leave one of both out")
    learner, policy, *_ = diffusion_policy.diffusion_policy(config, spec, guide=guide)
    policy = warm(policy, config.levels, config.execute)
    if not config.discrete:
        return Method(learner, policy)
    config.scale(spec)  # refuses what is no entry before anything is trained
    own = (("config", config), ("spec", spec))
    update, act = Bound(_update, (*own, ("update", learner.update))), Bound(_act, (*own, ("act", policy.act)))
    return Method(learner._replace(update=update), Policy(policy.init, act))
