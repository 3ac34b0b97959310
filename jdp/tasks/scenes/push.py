"""jdp/Push-v0: along a corridor, across which a force pushes that jumps at random, also within a chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import follow, pushed
from jdp.tasks.scenes.scene import Scene, scene
from jdp.types import Bound, named_keys

LENGTH, WALL = 2.0, 0.15  # m, of the corridor, and from its middle to its walls
WEAKEST, STRONGEST = 0.3, 0.7  # m/s^2, the size of the force; its sign is random
JUMP = 0.15  # chance at every step that the force is drawn again
_SPEED, _BACK = 0.5, 2.0  # m/s along the corridor, and 1/s, how fast the expert returns to its middle


class PushState(NamedTuple):
    """One point; the corridor is y = 0."""

    position: Array  # [2]
    velocity: Array  # [2]
    force: Array  # [], m/s^2 along y, in the step that comes


def drawn_force(key: Array) -> Array:
    """`[]`, m/s^2; the key is consumed."""
    keys = named_keys(key, "size", "sign")
    size = jax.random.uniform(keys["size"], minval=WEAKEST, maxval=STRONGEST)
    return size * jax.random.rademacher(keys["sign"], (), dtype=jnp.float32)


def reset(key: Array) -> PushState:
    """At rest where the corridor begins."""
    return PushState(jnp.zeros(2), jnp.zeros(2), drawn_force(key))


def observe(state: PushState) -> Array:
    """`[5]`: position, velocity, and the force of the step that comes."""
    return jnp.concatenate([state.position, state.velocity, state.force[None]])


def move(key: Array, state: PushState, action: Array, *, jump: float) -> tuple[PushState, Array, Array]:
    """Success is the end of the corridor; its walls fail."""
    keys = named_keys(key, "jumps", "force")
    push = action + jnp.stack([jnp.zeros(()), state.force])
    position, velocity = pushed(state.position, state.velocity, push)
    again = jax.random.bernoulli(keys["jumps"], jump)
    force = jnp.where(again, drawn_force(keys["force"]), state.force)
    return PushState(position, velocity, force), position[0] >= LENGTH, jnp.abs(position[1]) > WALL


def expert(state: PushState) -> Array:
    """`[2]`, who holds against the force at once."""
    wanted = jnp.stack([jnp.full((), _SPEED), -_BACK * state.position[1]])
    held = follow(state.velocity, wanted) - jnp.stack([jnp.zeros(()), state.force])
    return jnp.clip(held, -1.0, 1.0)


def push_scene(jump: float = JUMP) -> Scene:
    """The scene whose force is drawn again with the chance `jump` at every step."""
    return scene(
        "jdp/Push-v0",
        70,
        (("position", 2), ("velocity", 2), ("force", 1)),
        reset=reset,
        observe=observe,
        move=Bound(move, (("jump", jump),)),
        expert=expert,
    )
