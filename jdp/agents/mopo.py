"""MOPO (Yu et al. 2020, arXiv 2005.13239): SAC on a model whose rewards are less where it is uncertain."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
from jax import Array

from jdp.agents import common
from jdp.agents.sac import SACConfig, sac
from jdp.errors import UserError
from jdp.types import Bound, ModelBased, PyTree, Spec, Transition, WorldModel
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
        common.check_settings("MOPOConfig", penalty=(self.penalty, 0, 1e9))


def prediction_of(model: WorldModel, algorithm: str) -> Any:
    """`model.predict`, or a `UserError` where the model is no ensemble."""
    if model.predict is None:
        raise UserError(
            f"{algorithm} measures the uncertainty of an ensemble, and this world model predicts no "
            "members: give it an ensemble, or use COMBO"
        )
    return model.predict


def uncertainty(std: Array) -> Array:
    """`[B]`, the largest norm of any member's standard deviations `[E, B, O + 1]` (paper, section 4.3).

    Over the elites, which are what rollouts are drawn from; the authors' code takes all members.
    """
    return jnp.max(jnp.linalg.norm(std, axis=-1), axis=0)


def observed_start(observations: Array, actions: Array, *, inner: WorldModel) -> tuple[PyTree, Array]:
    """A carry that remembers the observation `[B, O]` which the next step starts from."""
    return inner.start(observations, actions), observations[:, -1]


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


def same_state(state: PyTree, transitions: Transition) -> PyTree:
    """The calibration of a model that needs none."""
    del transitions
    return state


@lru_cache
def mopo(config: MOPOConfig, spec: Spec, model: WorldModel) -> ModelBased:
    """MOPO as SAC and the penalised `model`. Equal arguments give the same result.

    Raises:
        UserError: if `model` predicts no standard deviations.
    """
    return ModelBased(sac(config, spec), penalised(model, config), same_state)
