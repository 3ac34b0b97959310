"""jdp/Cue-v0: up the stem of a T, then into the arm that a cue named in the first steps, 40 steps before."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import follow, pushed, steer
from jdp.tasks.scenes.scene import scene

SHOWN = 4  # steps, at which the cue is seen
STEM, ARM, WALL = 2.0, 1.0, 0.25  # m: length of the stem, of an arm; from the middle of both to their walls
_END = 0.2  # m before the end of an arm, where it is reached
_TURN = 0.15  # m before the arms, where the expert turns
_SPEED = 0.5  # m/s, the expert's: 40 steps through the stem


class CueState(NamedTuple):
    """One point; the stem is x = 0 from y = 0 on, the arms are y = `STEM`."""

    position: Array  # [2]
    velocity: Array  # [2]
    side: Array  # [], -1 for the left arm, 1 for the right one
    time: Array  # [] int32, steps so far


def reset(key: Array) -> CueState:
    """At rest at the foot of the stem; both sides are equally likely."""
    side = jax.random.rademacher(key, (), dtype=jnp.float32)
    return CueState(jnp.zeros(2), jnp.zeros(2), side, jnp.zeros((), jnp.int32))


def observe(state: CueState) -> Array:
    """`[5]`: position, velocity, and the cue, which is 0 after `SHOWN` steps."""
    cue = jnp.where(state.time < SHOWN, state.side, 0.0)
    return jnp.concatenate([state.position, state.velocity, cue[None]])


def move(key: Array, state: CueState, action: Array) -> tuple[CueState, Array, Array]:
    """Success is the end of the named arm; the other one's end fails, and so does leaving the T."""
    del key  # nothing is random
    position, velocity = pushed(state.position, state.velocity, action)
    x, y = position
    in_stem = (jnp.abs(x) <= WALL) & (y >= -WALL) & (y <= STEM + WALL)
    in_arms = (jnp.abs(y - STEM) <= WALL) & (jnp.abs(x) <= ARM + WALL)
    ended = jnp.abs(x) >= ARM - _END
    right = ended & (jnp.sign(x) == state.side)
    failed = ~(in_stem | in_arms) | (ended & ~right)
    return CueState(position, velocity, state.side, state.time + 1), right, failed


def expert(state: CueState) -> Array:
    """`[2]`, who remembers the side."""
    x, y = state.position
    up = follow(state.velocity, jnp.stack([-x, jnp.full((), _SPEED)]))
    end = jnp.stack([state.side * (ARM + WALL), jnp.full((), STEM)])
    turned = (y > STEM - _TURN) | (jnp.abs(x) > WALL)
    return jnp.where(turned, steer(state.position, state.velocity, end, _SPEED), up)


CUE = scene(
    "jdp/Cue-v0",
    90,
    (("position", 2), ("velocity", 2), ("cue", 1)),
    reset=reset,
    observe=observe,
    move=move,
    expert=expert,
)
