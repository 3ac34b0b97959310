"""jdp/Placed-v0, jdp/Moved-v0: around an obstacle to a goal, where data were made, or all of it elsewhere."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import within
from jdp.tasks.scenes.scene import Scene, scene
from jdp.types import Bound, named_keys

STRIDE = 0.05  # m of a step, of an action of 1
REACHED, RADIUS = 0.1, 0.2  # m from the goal: success; from the middle of the obstacle: failure
REGION = 0.2  # m, half-width of where the middles of scenes lie
FAR = 5.0  # m, by which a moved scene lies elsewhere
_APART, _NOISE = 0.8, 0.1  # m from the middle to start and goal, and half-width around them and the obstacle
_CLEAR, _WIDE = 0.35, 0.42  # m from the obstacle: the way to the goal is free; where the expert passes


class PlacedState(NamedTuple):
    """Three points, at absolute positions."""

    agent: Array  # [2]
    goal: Array  # [2]
    obstacle: Array  # [2]


def _unit(angle: Array) -> Array:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def reset(key: Array, *, far: float) -> PlacedState:
    """Start and goal on two sides of an obstacle, in any direction; `far` m from where data are made."""
    keys = named_keys(key, "middle", "away", "along", "noise")
    away, along = (_unit(jax.random.uniform(keys[k], maxval=2 * math.pi)) for k in ("away", "along"))
    middle = jax.random.uniform(keys["middle"], (2,), minval=-REGION, maxval=REGION) + far * away
    noise = jax.random.uniform(keys["noise"], (3, 2), minval=-_NOISE, maxval=_NOISE)
    apart = _APART * along
    return PlacedState(middle - apart + noise[0], middle + apart + noise[1], middle + noise[2])


def observe(state: PlacedState) -> Array:
    """`[6]`: agent, goal and obstacle."""
    return jnp.concatenate(state)


def move(key: Array, state: PlacedState, action: Array) -> tuple[PlacedState, Array, Array]:
    """The agent goes where the action `[2]` says, in strides from where it is; the obstacle fails."""
    del key  # nothing is random
    agent = state.agent + STRIDE * action
    failed = within(agent, state.obstacle, RADIUS)
    return state._replace(agent=agent), within(agent, state.goal, REACHED), failed


def expert(state: PlacedState) -> Array:
    """`[2]`: to the goal, or while the obstacle is in the way beside it, on the side that the way passes."""
    way, ahead = state.goal - state.agent, state.obstacle - state.agent
    length = jnp.maximum(jnp.linalg.norm(way), 1e-6)
    left = jnp.stack([-way[1], way[0]]) / length
    side = jnp.sum(left * ahead)  # m, how far to the left of the way the obstacle lies
    along = jnp.sum(way * ahead) / length
    blocked = (jnp.abs(side) < _CLEAR) & (along > 0) & (along < length)
    around = ahead - jnp.where(side > 0, _WIDE, -_WIDE) * left
    step = jnp.where(blocked, around, way)
    return step / jnp.maximum(jnp.linalg.norm(step), STRIDE)


def placed_scene(*, far: float) -> Scene:
    """The scene where data are made, or with `far` that many m away."""
    return scene(
        "jdp/Moved-v0" if far else "jdp/Placed-v0",
        60,
        (("agent", 2), ("goal", 2), ("obstacle", 2)),
        reset=Bound(reset, (("far", far),)),
        observe=observe,
        move=move,
        expert=expert,
        data="jdp/Placed-v0",
    )
