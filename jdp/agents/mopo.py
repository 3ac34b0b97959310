"""MOPO (Yu et al. 2020, arXiv 2005.13239): SAC on a model whose rewards are less where it is uncertain."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import jax.numpy as jnp
from jax import Array

from jdp.agents.pessimism import observed_start, prediction_of, same_state
from jdp.agents.presets import presets_of
from jdp.agents.sac import SACConfig, sac
from jdp.errors import check_settings
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Imagination, Method, PyTree, Spec, WorldModel
from jdp.world_models.rollout import RolloutConfig

# (rollout length, penalty) of D4RL's v2 locomotion sets, as re-implementations of the paper tuned them
MOPO_SETTINGS: dict[str, tuple[int, float]] = {
    "halfcheetah-medium-v2": (5, 0.5),
    "halfcheetah-medium-replay-v2": (5, 0.5),
    "halfcheetah-medium-expert-v2": (5, 2.5),
    "hopper-medium-v2": (5, 5.0),
    "hopper-medium-replay-v2": (5, 2.5),
    "hopper-medium-expert-v2": (5, 5.0),
    "walker2d-medium-v2": (5, 0.5),
    "walker2d-medium-replay-v2": (1, 2.5),
    "walker2d-medium-expert-v2": (1, 2.5),
}


@dataclass(frozen=True)
class MOPOConfig(SACConfig):
    """Settings of MOPO; `penalty` and the rollouts' length are tuned a dataset: `MOPO_SETTINGS`."""

    penalty: float = 1.0  # lambda, reward lost for a unit of uncertainty
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    actor_learning_rate: float = 1e-4
    alpha_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("MOPOConfig", penalty=(self.penalty, 0, 1e9))


def uncertainty(std: Array) -> Array:
    """`[B]`, the largest norm of any member's standard deviations `[E, B, O + 1]` (paper, section 4.3).

    Over the elites, which are what rollouts are drawn from; the authors' code takes all members.
    """
    return jnp.max(jnp.linalg.norm(std, axis=-1), axis=0)


def _step(
    key: Array,
    state: PyTree,
    carry: tuple[PyTree, Array],
    action: Array,
    *,
    inner: WorldModel,
    penalty: float,
) -> tuple[tuple[PyTree, Array], Array, Array, Array]:
    inside, observation = carry
    inside, following, reward, terminal = inner.step(key, state, inside, action)
    std = prediction_of(inner, "MOPO")(state, observation, action).std
    return (inside, following), following, reward - penalty * uncertainty(std), terminal


def penalised(model: WorldModel, config: MOPOConfig) -> WorldModel:
    """`model` with rewards `r - penalty * max_i |sigma_i(s, a)|`; its state is the same.

    Raises:
        UserError: if `model` predicts no standard deviations.
    """
    prediction_of(model, "MOPO")
    inner = ("inner", model)
    return model._replace(
        start=Bound(observed_start, (inner,)), step=Bound(_step, (inner, ("penalty", config.penalty)))
    )


def presets(task: Task) -> Mapping[str, Preset]:
    """The penalty and the rollouts' length that were tuned for the dataset."""
    config = MOPOConfig()
    if task.name in MOPO_SETTINGS:
        length, penalty = MOPO_SETTINGS[task.name]
        config = replace(config, penalty=penalty, rollouts=replace(config.rollouts, length=length))
    return presets_of(config)


@register(
    "agent",
    "mopo",
    MOPOConfig,
    presets,
    title="MOPO",
    paper="arXiv 2005.13239",
    idea="SAC in a model whose rewards are less where it is uncertain",
    departures="the uncertainty is of the elites, not of all members",
    model_based=True,
    needs_ensemble=True,
)
@lru_cache
def mopo(config: MOPOConfig, spec: Spec, model: WorldModel) -> Method:
    """MOPO: SAC, which learns from rollouts of the penalised `model`. Equal arguments give the same method.

    Raises:
        UserError: if `model` predicts no standard deviations.
    """
    return sac(config, spec)._replace(imagination=Imagination(penalised(model, config), same_state))
