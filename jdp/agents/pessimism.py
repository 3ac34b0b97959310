"""What pessimistic agents ask of a world model: whether its members agree, and where a step started."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.types import Normal, PyTree, Transition, WorldModel

CHUNK = 4096  # rows of the dataset whose disagreement is computed at once


def prediction_of(model: WorldModel, algorithm: str) -> Any:
    """`model.predict`, or a `UserError` where the model is no ensemble."""
    if model.predict is None:
        raise UserError(
            f"{algorithm} measures the uncertainty of an ensemble, and this world model predicts no "
            "members: give it an ensemble, or use COMBO"
        )
    return model.predict


def observed_start(observations: Array, actions: Array, *, inner: WorldModel) -> tuple[PyTree, Array]:
    """A carry that remembers the observation `[B, O]` which the next step starts from."""
    return inner.start(observations, actions), observations[:, -1]


def same_state(state: PyTree, transitions: Transition) -> PyTree:
    """The calibration of a model that needs none."""
    del transitions
    return state


def disagreement(mean: Array) -> Array:
    """`[B]`, the largest distance between two members' predictions `[M, B, O]` of the SAME input."""
    largest = jnp.zeros(mean.shape[1])
    # Rolled by 1 to M / 2, the members meet in all pairs.
    for shift in range(1, len(mean) // 2 + 1):
        distance = jnp.linalg.norm(mean - jnp.roll(mean, shift, axis=0), axis=-1)
        largest = jnp.maximum(largest, jnp.max(distance, axis=0))
    return largest


def next_observations(prediction: Normal) -> Array:
    """The means of the next observations `[..., O]`; the last output is the reward, which does not count."""
    return prediction.mean[..., :-1]


@partial(jax.jit, static_argnames="model")
def largest_disagreement(state: PyTree, observation: Array, action: Array, *, model: WorldModel) -> Array:
    """`[]`, over a dataset of observations `[D, O]` and actions `[D, A]`, in chunks."""
    rows = len(observation)
    size = min(CHUNK, rows)
    count = -(-rows // size)

    def chunked(x: Array) -> Array:  # the last chunk is filled up with the last row
        return jnp.pad(x, ((0, count * size - rows), (0, 0)), mode="edge").reshape(count, size, -1)

    def largest(chunk: tuple[Array, Array]) -> Array:
        return jnp.max(disagreement(next_observations(prediction_of(model, "MOReL")(state, *chunk))))

    return jnp.max(jax.lax.map(largest, (chunked(observation), chunked(action))))
