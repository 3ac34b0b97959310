"""Gymnasium's Pendulum-v1 as pure functions: swing up, and stay up with little torque."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import Spec, Stepped, Task, named_keys

TIME_STEP, GRAVITY = 0.05, 10.0  # s, m/s^2; a rod of 1 kg and 1 m
TOP_SPEED, TORQUE = 8.0, 2.0  # rad/s, and N m of an action of 1
SPEC = Spec(3, 1, "Pendulum-v1", 200, action_low=(-TORQUE,), action_high=(TORQUE,))


class PendulumState(NamedTuple):
    """One pendulum."""

    angle: Array  # [], rad, from upright
    speed: Array  # [], rad/s


def _reset(key: Array) -> tuple[PendulumState, Array, Array]:
    keys = named_keys(key, "angle", "speed")
    angle = jax.random.uniform(keys["angle"], minval=-math.pi, maxval=math.pi)
    state = PendulumState(angle, jax.random.uniform(keys["speed"], minval=-1.0, maxval=1.0))
    return state, _observed(state), jnp.zeros(0)


def _observed(state: PendulumState) -> Array:
    return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.speed])


def _step(key: Array, state: PendulumState, action: Array) -> tuple[PendulumState, Stepped]:
    del key  # nothing is random
    torque = TORQUE * action[0]
    off = jnp.mod(state.angle + math.pi, 2 * math.pi) - math.pi
    cost = off**2 + 0.1 * state.speed**2 + 0.001 * torque**2
    turned = state.speed + (1.5 * GRAVITY * jnp.sin(state.angle) + 3.0 * torque) * TIME_STEP
    speed = jnp.clip(turned, -TOP_SPEED, TOP_SPEED)
    state, never = PendulumState(state.angle + speed * TIME_STEP, speed), jnp.zeros((), bool)
    return state, Stepped(_observed(state), -cost, never, never)


def _state_of(observation: Array, goal: Array) -> PendulumState:
    del goal
    return PendulumState(jnp.arctan2(observation[1], observation[0]), observation[2])


TASK = Task(_reset, _step, SPEC, _state_of)
