"""jdp/Hidden-v0: reach a goal and stop. Velocities are hidden, so one look does not say when to brake."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import pushed, steer, within
from jdp.tasks.scenes.scene import scene
from jdp.types import named_keys

REACHED, SLOW = 0.1, 0.1  # m from the goal, and m/s: success
_SPEED = 0.7  # m/s, the expert's, and the most on each axis at the start


class HiddenState(NamedTuple):
    """One point."""

    position: Array  # [2]
    velocity: Array  # [2]
    goal: Array  # [2]


def reset(key: Array) -> HiddenState:
    """A point on its way somewhere, and a goal, within [-1, 1]^2."""
    keys = named_keys(key, "position", "velocity", "goal")
    widths = (1.0, _SPEED, 1.0)
    drawn = (
        jax.random.uniform(k, (2,), minval=-w, maxval=w) for k, w in zip(keys.values(), widths, strict=True)
    )
    return HiddenState(*drawn)


def observe(state: HiddenState) -> Array:
    """`[4]`, position and goal."""
    return jnp.concatenate([state.position, state.goal])


def move(key: Array, state: HiddenState, action: Array) -> tuple[HiddenState, Array, Array]:
    """Success is to be slow at the goal; nothing fails."""
    del key  # nothing is random
    position, velocity = pushed(state.position, state.velocity, action)
    success = within(position, state.goal, REACHED) & (jnp.linalg.norm(velocity) <= SLOW)
    return HiddenState(position, velocity, state.goal), success, jnp.zeros((), bool)


def expert(state: HiddenState) -> Array:
    """`[2]`, who knows the velocity."""
    return steer(state.position, state.velocity, state.goal, _SPEED)


HIDDEN = scene(
    "jdp/Hidden-v0",
    60,
    (("position", 2), ("goal", 2)),
    reset=reset,
    observe=observe,
    move=move,
    expert=expert,
)
