"""A point that is pushed through a square with round obstacles to a goal: a task of our own, small and exact.

The state is position and velocity, the action an acceleration, and a step is the closed form of a constant
push over the time step. Whoever touches an obstacle or leaves the square has failed, and the episode ends.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import TOP_SPEED, pushed, within
from jdp.types import Bound, Spec, Stepped, Task, named_keys

ENV_ID = "jdp/DoubleIntegrator-v0"
REACHED = 0.1  # m, from the goal: reward 1, and the end


class Square(NamedTuple):
    """The square [-1, 1]^2 and what stands in it."""

    obstacles: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.3), (-0.1, 0.65, 0.15))  # x, y, radius
    start: tuple[float, float] = (-0.8, 0.0)
    goal: tuple[float, float] = (0.8, 0.0)
    noise: float = 0.1  # m, half-width around both
    top_speed: float = TOP_SPEED  # m/s on each axis
    limit: int = 100  # steps


class PointState(NamedTuple):
    """One point."""

    position: Array  # [2], m
    velocity: Array  # [2], m/s
    goal: Array  # [2], m


def _reset(key: Array, *, square: Square) -> tuple[PointState, Array, Array]:
    keys = named_keys(key, "start", "goal")
    start, goal = (
        jnp.asarray(place) + jax.random.uniform(keys[name], (2,), minval=-square.noise, maxval=square.noise)
        for name, place in (("start", square.start), ("goal", square.goal))
    )
    state = PointState(start, jnp.zeros(2), goal)
    return state, jnp.concatenate([start, state.velocity]), goal


def clearance(position: Array, square: Square) -> Array:
    """`[...]`, metres from points `[..., 2]` to the nearest obstacle or edge; negative within one."""
    nearest = 1.0 - jnp.max(jnp.abs(position), axis=-1)
    for x, y, radius in square.obstacles:
        away = jnp.hypot(position[..., 0] - x, position[..., 1] - y)
        nearest = jnp.minimum(nearest, away - radius)
    return nearest


def _step(key: Array, state: PointState, action: Array, *, square: Square) -> tuple[PointState, Stepped]:
    del key  # nothing is random
    position, velocity = pushed(state.position, state.velocity, action, square.top_speed)
    success = within(position, state.goal, REACHED)
    failed = clearance(position, square) < 0
    success = success & ~failed
    seen = jnp.concatenate([position, velocity])
    state = PointState(position, velocity, state.goal)
    return state, Stepped(seen, success.astype(jnp.float32), success | failed, success)


def _state_of(observation: Array, goal: Array) -> PointState:
    return PointState(observation[:2], observation[2:], goal)


def double_integrator_task(square: Square = Square()) -> Task:  # noqa: B008 (immutable)
    """The task of `square`: reward 1 at the goal, where the episode ends; 0 elsewhere."""
    settings = (("square", square),)
    spec = Spec(4, 2, ENV_ID, square.limit, goal=(0, 1))
    return Task(Bound(_reset, settings), Bound(_step, settings), spec, _state_of)
