"""MOReL (Kidambi et al. 2020, arXiv 2005.05951): episodes end where the members of an ensemble disagree."""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents import common
from jdp.agents.mopo import observed_start, prediction_of
from jdp.agents.sac import SACConfig, sac
from jdp.types import Bound, Metrics, ModelBased, Normal, PyTree, Spec, Transition, WorldModel
from jdp.world_models.rollout import RolloutConfig

CHUNK = 4096  # rows of the dataset whose disagreement is computed at once


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
        common.check_settings("MOReLConfig", pessimism=(self.pessimism, 1e-6, 1e6))


class MOReLState(NamedTuple):
    """The state of the model, and what separates known from unknown."""

    model: PyTree
    threshold: Array  # [], the largest disagreement that counts as known
    halt_reward: Array  # []


def disagreement(mean: Array) -> Array:
    """`[B]`, the largest distance between two members' predictions `[M, B, O]` of the SAME input."""
    largest = jnp.zeros(mean.shape[1])
    # Rolled by 1 to M / 2, the members meet in all pairs.
    for shift in range(1, len(mean) // 2 + 1):
        distance = jnp.linalg.norm(mean - jnp.roll(mean, shift, axis=0), axis=-1)
        largest = jnp.maximum(largest, jnp.max(distance, axis=0))
    return largest


def _next_observations(prediction: Normal) -> Array:
    return prediction.mean[..., :-1]  # the last output is the reward, which does not count


@partial(jax.jit, static_argnames="model")
def largest_disagreement(state: PyTree, observation: Array, action: Array, *, model: WorldModel) -> Array:
    """`[]`, over a dataset of observations `[D, O]` and actions `[D, A]`, in chunks."""
    rows = len(observation)
    size = min(CHUNK, rows)
    count = -(-rows // size)

    def chunked(x: Array) -> Array:  # the last chunk is filled up with the last row
        return jnp.pad(x, ((0, count * size - rows), (0, 0)), mode="edge").reshape(count, size, -1)

    def largest(chunk: tuple[Array, Array]) -> Array:
        return jnp.max(disagreement(_next_observations(prediction_of(model, "MOReL")(state, *chunk))))

    return jnp.max(jax.lax.map(largest, (chunked(observation), chunked(action))))


def _init(key: Array, transitions: Transition, *, inner: WorldModel) -> MOReLState:
    """Knows everything, until it is calibrated."""
    return MOReLState(inner.init(key, transitions), jnp.array(jnp.inf, jnp.float32), jnp.zeros(()))


def _update(key: Array, state: MOReLState, batch: PyTree, *, inner: WorldModel) -> tuple[MOReLState, Metrics]:
    model, metrics = inner.update(key, state.model, batch)
    return state._replace(model=model), metrics


def _step(
    key: Array, state: MOReLState, carry: tuple[PyTree, Array], action: Array, *, inner: WorldModel
) -> tuple[tuple[PyTree, Array], Array, Array, Array]:
    inside, observation = carry
    inside, following, reward, terminal = inner.step(key, state.model, inside, action)
    prediction = prediction_of(inner, "MOReL")(state.model, observation, action)
    unknown = disagreement(_next_observations(prediction)) > state.threshold
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
        init=Bound(_init, inner),
        update=Bound(_update, inner),
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


@lru_cache
def morel(config: MOReLConfig, spec: Spec, model: WorldModel) -> ModelBased:
    """MOReL as SAC and the pessimistic `model`, which is calibrated on the dataset.

    Equal arguments give the same result.

    Raises:
        UserError: if `model` predicts no members.
    """
    settings = (("model", model), ("config", config))
    return ModelBased(sac(config, spec), pessimistic(model), Bound(calibrate, settings))
