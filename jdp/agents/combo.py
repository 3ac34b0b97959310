"""COMBO (Yu et al. 2021, arXiv 2102.08363): CQL that is pessimistic on rollouts of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import jax.numpy as jnp
from jax import Array

from jdp.agents.conservative import check_conservative, soft_maximum
from jdp.agents.pessimism import same_state
from jdp.agents.presets import presets_of
from jdp.agents.sac import SACConfig, SACState, sac_init, sac_target, sac_update
from jdp.errors import UserError
from jdp.learning.actors import actor_method
from jdp.registry import Preset, Task, register
from jdp.types import Imagination, Method, Metrics, Spec, Transition, WorldModel
from jdp.world_models.rollout import RolloutConfig

# (rollout length, conservative weight) of D4RL's v2 locomotion sets, as re-implementations tuned them
COMBO_SETTINGS: dict[str, tuple[int, float]] = {
    "halfcheetah-medium-v2": (5, 0.5),
    "halfcheetah-medium-replay-v2": (5, 0.5),
    "halfcheetah-medium-expert-v2": (5, 5.0),
    "hopper-medium-v2": (5, 5.0),
    "hopper-medium-replay-v2": (5, 0.5),
    "hopper-medium-expert-v2": (5, 5.0),
    "walker2d-medium-v2": (1, 5.0),
    "walker2d-medium-replay-v2": (1, 0.5),
    "walker2d-medium-expert-v2": (1, 5.0),
}


@dataclass(frozen=True)
class COMBOConfig(SACConfig):
    """Settings of COMBO; the weight and the rollouts' length are tuned a dataset: `COMBO_SETTINGS`."""

    conservative_weight: float = 5.0  # beta in the paper
    temperature: float = 1.0  # of the soft maximum over actions
    actions: int = 10  # of each kind: uniform, pi(s), pi(s')
    rollouts: RolloutConfig = field(default_factory=lambda: RolloutConfig(real_share=0.5))
    actor_learning_rate: float = 1e-4
    alpha_learning_rate: float = 1e-4
    hidden: tuple[int, ...] = (256, 256, 256)
    backup_entropy: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_conservative(self)
        if not self.rollouts.real_share:
            raise UserError("COMBO pushes up its real rows: rollouts.real_share must be above 0")


def _update(
    key: Array, state: SACState, batch: Transition, *, config: COMBOConfig, spec: Spec
) -> tuple[SACState, Metrics]:
    """An update of SAC whose critics are pushed down on all states and up on the real rows (equation 2).

    The first `round(real_share * B)` rows of `batch` are real.
    """
    rows = len(batch.reward)
    real = round(config.rollouts.real_share * rows)
    if not real:
        raise UserError(f"COMBO needs real rows in its batches of {rows}: raise rollouts.real_share")

    def penalty(params, critic, key, batch, actor):
        high = soft_maximum(
            params, critic, key, batch, actor, actions=config.actions, temperature=config.temperature
        )
        q = critic.apply(params, batch.observation[:real], batch.action[:real])
        gap = jnp.mean(high, axis=1) - jnp.mean(q, axis=1)  # [N]
        return config.conservative_weight * jnp.sum(gap), {"conservative_gap": jnp.mean(gap)}

    return sac_update(key, state, batch, config=config, spec=spec, penalty=penalty)


def presets(task: Task) -> Mapping[str, Preset]:
    """The weight and the rollouts' length that were tuned for the dataset."""
    config = COMBOConfig()
    if task.name in COMBO_SETTINGS:
        length, weight = COMBO_SETTINGS[task.name]
        rollouts = replace(config.rollouts, length=length)
        config = replace(config, conservative_weight=weight, rollouts=rollouts)
    return presets_of(config, smaller={"hidden": (256, 256), "actions": 4})


@register(
    "agent",
    "combo",
    COMBOConfig,
    presets,
    title="COMBO",
    paper="arXiv 2102.08363",
    idea="CQL that is pessimistic on rollouts of a model",
    departures="the model may be a diffusion model too; the log std has CQL's departures here",
    model_based=True,
    needs_ensemble=False,
)
@lru_cache
def combo(config: COMBOConfig, spec: Spec, model: WorldModel) -> Method:
    """COMBO, which learns from rollouts of the unchanged `model`, of which no uncertainty is asked.

    Equal arguments give the same method.
    """
    imagination = Imagination(model, same_state)
    return actor_method(sac_init, _update, sac_target, config, spec, imagination=imagination)
