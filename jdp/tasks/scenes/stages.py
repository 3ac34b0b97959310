"""jdp/Stages-v0: first touch the token that is told, the left or the right one, then the door."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import pushed, steer, within
from jdp.tasks.scenes.scene import scene
from jdp.types import named_keys

TOUCH = 0.12  # m from a place
_START = (0.0, -0.6)
_PLACES = ((-0.6, 0.0), (0.6, 0.0), (0.0, 0.6))  # the tokens and the door, each within `_NOISE` of it
_NOISE = 0.2  # m
_SPEED = 0.7  # m/s, the expert's
DOOR = 2  # its number among the places


class StagesState(NamedTuple):
    """One point."""

    position: Array  # [2]
    velocity: Array  # [2]
    places: Array  # [3, 2], the left token, the right token, the door
    told: Array  # [] int32, 0 or 1, which token
    stage: Array  # [] int32, 0 before it was touched, then 1


def reset(key: Array) -> StagesState:
    """At rest below the tokens, which lie below the door."""
    keys, none = named_keys(key, "start", "places", "told"), jnp.zeros((), jnp.int32)
    start, places = (
        jnp.asarray(x) + jax.random.uniform(keys[name], shape, minval=-_NOISE, maxval=_NOISE)
        for name, x, shape in (("start", _START, (2,)), ("places", _PLACES, (3, 2)))
    )
    told = jax.random.bernoulli(keys["told"]).astype(jnp.int32)
    return StagesState(start, jnp.zeros(2), places, told, none)


def observe(state: StagesState) -> Array:
    """`[12]`: position, velocity, the three places, the token that is told (-1, 1), and the stage (0, 1)."""
    told = jnp.where(state.told == 1, 1.0, -1.0)
    entries = jnp.stack([told, state.stage.astype(jnp.float32)])
    return jnp.concatenate([state.position, state.velocity, state.places.reshape(-1), entries])


def subtask(observation: Array) -> Array:
    """`[...]` int32 for observations `[..., 12]`: the place to be touched next, 0 or 1 a token, 2 the door.

    The label of a row's sub-task, a function of the last two entries of what is seen.
    """
    told, stage = observation[..., -2], observation[..., -1]
    return jnp.where(stage > 0.5, DOOR, (told > 0).astype(jnp.int32))


def move(key: Array, state: StagesState, action: Array) -> tuple[StagesState, Array, Array]:
    """Success is the door after the token; before it the other token fails, and the door is closed."""
    del key  # nothing is random
    position, velocity = pushed(state.position, state.velocity, action)
    touched = within(position[None], state.places, TOUCH)  # [3]
    failed = touched[1 - state.told] & (state.stage == 0)
    stage = jnp.maximum(state.stage, touched[state.told].astype(jnp.int32))
    moved = state._replace(position=position, velocity=velocity, stage=stage)
    return moved, touched[DOOR] & (stage == 1), failed


def expert(state: StagesState) -> Array:
    """`[2]`: to the place of the sub-task."""
    target = state.places[jnp.where(state.stage == 1, DOOR, state.told)]
    return steer(state.position, state.velocity, target, _SPEED)


STAGES = scene(
    "jdp/Stages-v0",
    90,
    (("position", 2), ("velocity", 2), ("places", 6), ("told", 1), ("stage", 1)),
    reset=reset,
    observe=observe,
    move=move,
    expert=expert,
)
