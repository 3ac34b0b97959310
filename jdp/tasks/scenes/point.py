"""A point in the plane that is pushed, and how an expert steers it; lengths in m, speeds in m/s."""

import jax.numpy as jnp
from jax import Array

TIME_STEP = 0.1  # s
TOP_SPEED = 1.0  # m/s on each axis
_GAIN = 4.0  # 1/s, of the difference between the wanted velocity and the one that is
_NEAR = 1.5  # 1/s, of the distance, by which a point slows down before its target


def pushed(
    position: Array, velocity: Array, action: Array, top_speed: float = TOP_SPEED
) -> tuple[Array, Array]:
    """`(position [2], velocity [2])` after one step under the acceleration `action` `[2]`, in m/s^2."""
    after = jnp.clip(velocity + TIME_STEP * action, -top_speed, top_speed)
    return position + TIME_STEP * (velocity + after) / 2, after


def within(position: Array, place: Array, reach: float) -> Array:
    """`[...]` bool, whether `position` `[..., 2]` is at most `reach` m away from `place` `[..., 2]`."""
    return jnp.linalg.norm(position - place, axis=-1) <= reach


def follow(velocity: Array, wanted: Array, gain: float = _GAIN) -> Array:
    """`[2]` within [-1, 1], the acceleration that makes the velocity the `wanted` one `[2]`."""
    return jnp.clip(gain * (wanted - velocity), -1.0, 1.0)


def steer(
    position: Array,
    velocity: Array,
    target: Array,
    speed: float,
    *,
    near: float = _NEAR,
    gain: float = _GAIN,
) -> Array:
    """`[2]` within [-1, 1], the acceleration towards `target` `[2]`, where it stops; at most at `speed`.

    `near` (1/s) says how far before the target it slows down, `gain` is that of `follow`.
    """
    wanted = near * (target - position)
    fastest = jnp.maximum(jnp.linalg.norm(wanted), 1e-6)
    return follow(velocity, wanted * jnp.minimum(1.0, speed / fastest), gain)
