"""jdp/Clean-v0, jdp/Corrupted-v0: a goal is told coarsely, and a camera shows it, or shows garbage."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import pushed, steer, within
from jdp.tasks.scenes.scene import Scene, scene
from jdp.types import Bound, named_keys

REACHED = 0.1  # m from the goal: success
CELL = 0.25  # m: the goal is told as the middle of its cell
GARBAGE = 3.0  # m, each entry of what a broken camera shows, up to its sign: goals are less than 2 m away
_SPEED = 0.7  # m/s, the expert's


class CameraState(NamedTuple):
    """One point before its camera."""

    position: Array  # [2]
    velocity: Array  # [2]
    goal: Array  # [2]
    garbage: Array  # [2], shown by a camera that is broken; 0 by others


def reset(key: Array, *, broken: bool) -> CameraState:
    """At rest, start and goal within [-1, 1]^2."""
    keys = named_keys(key, "position", "goal", "garbage")
    position, goal = (jax.random.uniform(keys[k], (2,), minval=-1.0) for k in ("position", "goal"))
    signs = jax.random.rademacher(keys["garbage"], (2,), dtype=jnp.float32)
    return CameraState(position, jnp.zeros(2), goal, broken * GARBAGE * signs)


def coarse(goal: Array) -> Array:
    """The middle `[2]` of the cell that `goal` `[2]` lies in."""
    return CELL * (jnp.floor(goal / CELL) + 0.5)


def observe(state: CameraState, *, broken: bool) -> Array:
    """`[8]`: position, velocity and the coarse goal, then what the camera shows: the way to the goal."""
    shown = state.garbage if broken else state.goal - state.position
    return jnp.concatenate([state.position, state.velocity, coarse(state.goal), shown])


def move(key: Array, state: CameraState, action: Array) -> tuple[CameraState, Array, Array]:
    """Success is to come to the goal; nothing fails."""
    del key  # nothing is random
    position, velocity = pushed(state.position, state.velocity, action)
    success = within(position, state.goal, REACHED)
    return state._replace(position=position, velocity=velocity), success, jnp.zeros((), bool)


def expert(state: CameraState) -> Array:
    """`[2]`, who knows the goal."""
    return steer(state.position, state.velocity, state.goal, _SPEED)


def camera_scene(*, broken: bool) -> Scene:
    """The scene with a camera that works, in which data are made, or with one that shows garbage."""
    settings = (("broken", broken),)
    return scene(
        "jdp/Corrupted-v0" if broken else "jdp/Clean-v0",
        60,
        (("position", 6), ("camera", 2)),
        reset=Bound(reset, settings),
        observe=Bound(observe, settings),
        move=move,
        expert=expert,
        data="jdp/Clean-v0",
    )
