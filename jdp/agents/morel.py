"""MOReL (Kidambi et al. 2020, arXiv 2005.05951): episodes end where the members of an ensemble disagree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.agents.pessimism import (
    disagreement,
    largest_disagreement,
    next_observations,
    observed_start,
    prediction_of,
)
from jdp.agents.presets import presets_of
from jdp.agents.sac import SACConfig, sac
from jdp.errors import check_settings
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Imagination,
    Learner,
    Method,
    Metrics,
    Normal,
    PyTree,
    Spec,
    Transition,
    WorldModel,
)
from jdp.world_models.rollout import RolloutConfig


@dataclass(frozen=True)
class MOReLConfig(SACConfig):
    """Settings of MOReL's pessimistic model, and of the SAC that learns in it.

    The paper's policy learner is the natural policy gradient, on the model alone. This is its model with
    the learner of MOPO, so that the two differ by their pessimism only.
    """

    pessimism: float = 1.0  # the threshold is the dataset's largest disagreement over it: 1 knows all data
    halt_penalty: float = 50.0  # an unknown step earns the dataset's smallest reward less this
    rollouts: RolloutConfig = field(default_factory=lambda: RolloutConfig(real_share=0.01))
    actor_learning_rate: float = 1e-4
    alpha_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings("MOReLConfig", pessimism=(self.pessimism, 1e-6, 1e6))


class MOReLState(NamedTuple):
    """The state of the model, and what separates known from unknown."""

    model: PyTree
    threshold: Array  # [], the largest disagreement that counts as known
    halt_reward: Array  # []


def _init(key: Array, transitions: Transition, *, inner: WorldModel) -> MOReLState:
    """Knows everything, until it is calibrated."""
    return MOReLState(inner.learner.init(key, transitions), jnp.array(jnp.inf, jnp.float32), jnp.zeros(()))


def _update(key: Array, state: MOReLState, batch: PyTree, *, inner: WorldModel) -> tuple[MOReLState, Metrics]:
    model, metrics = inner.learner.update(key, state.model, batch)
    return state._replace(model=model), metrics


def _step(
    key: Array, state: MOReLState, carry: tuple[PyTree, Array], action: Array, *, inner: WorldModel
) -> tuple[tuple[PyTree, Array], Array, Array, Array]:
    inside, observation = carry
    inside, following, reward, terminal = inner.step(key, state.model, inside, action)
    prediction = prediction_of(inner, "MOReL")(state.model, observation, action)
    unknown = disagreement(next_observations(prediction)) > state.threshold
    reward = jnp.where(unknown, state.halt_reward, reward)
    return (inside, following), following, reward, jnp.where(unknown, jnp.ones_like(terminal), terminal)


def _predict(state: MOReLState, observation: Array, action: Array, *, inner: WorldModel) -> Normal:
    return prediction_of(inner, "MOReL")(state.model, observation, action)


def pessimistic(model: WorldModel) -> WorldModel:
    """`model` in which a step from an unknown `(s, a)` ends the episode with the halt reward.

    The paper's HALT state earns that reward for ever; here, as in the authors' code, it comes once.

    Raises:
        UserError: if `model` predicts no members.
    """
    prediction_of(model, "MOReL")
    inner = (("inner", model),)
    return WorldModel(
        learner=Learner(Bound(_init, inner), Bound(_update, inner), model.learner.draws),
        start=Bound(observed_start, inner),
        step=Bound(_step, inner),
        history=model.history,
        predict=Bound(_predict, inner),
    )


def calibrate(
    state: PyTree, transitions: Transition, *, model: WorldModel, config: MOReLConfig
) -> MOReLState:
    """The state of the pessimistic model from that of `model`, and the dataset `[D, ...]`."""
    observation, action, reward = (jnp.asarray(x, jnp.float32) for x in transitions[:3])
    largest = largest_disagreement(state, observation, action, model=model)
    return MOReLState(state, largest / config.pessimism, jnp.min(reward) - config.halt_penalty)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same for all datasets."""
    del task
    return presets_of(MOReLConfig())


@register(
    "agent",
    "morel",
    MOReLConfig,
    presets,
    title="MOReL",
    paper="arXiv 2005.05951",
    idea="episodes of a model end where its members disagree",
    departures="learns by MOPO's SAC, not by the natural policy gradient; the halt reward comes once, as in "
    "the code",
    model_based=True,
    needs_ensemble=True,
)
@lru_cache
def morel(config: MOReLConfig, spec: Spec, model: WorldModel) -> Method:
    """MOReL: SAC, which learns from rollouts of the pessimistic `model`, calibrated on the dataset.

    Equal arguments give the same method.

    Raises:
        UserError: if `model` predicts no members.
    """
    settings = (("model", model), ("config", config))
    imagination = Imagination(pessimistic(model), Bound(calibrate, settings))
    return sac(config, spec)._replace(imagination=imagination)
