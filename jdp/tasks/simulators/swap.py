"""Several agents, each a pushed point with a goal of its own, that must not collide: a task of our own.

Starts and goals lie in a square, apart from each other; or two agents swap places. A step is the closed form
of constant pushes over the time step. The observation is all positions, then all velocities. It is a success
when all agents are at their goals at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.barriers import Condition, PointMass, apart
from jdp.tasks.scenes.point import TIME_STEP, pushed, within
from jdp.types import Bound, Decision, Policy, PyTree, Spec, Stepped, Task, named_keys

ENV_ID = "jdp/Swap-v0"
REACHED = 0.1  # m, from its goal
MASS = PointMass(TIME_STEP, push=1.0)  # as `pushed` moves it
MARGIN = 0.01  # m, between agents that keep apart, for what a normal found in a few steps is off
# m/s^2 that agents count on, of the 1 along a side of the box: several others may be near at once.
BRAKE = 0.5
_DRAWS = 64  # of places, of which the first that are far enough apart are taken


class Swap(NamedTuple):
    """Who moves where."""

    agents: int = 4
    radius: float = 0.1  # m: two whose centres are nearer than two radii have collided
    half_width: float = 1.0  # m, of the square in which starts and goals lie
    apart: float = 0.4  # m, between two starts, and between two goals
    swapped: float | None = None  # m: two agents this far apart want each other's places, in any direction
    noise: float = 0.05  # m, half-width around those
    ends: bool = True  # whether a collision ends the episode, and it has failed
    limit: int = 200  # steps


class SwapState(NamedTuple):
    """N agents."""

    position: Array  # [N, 2], m
    velocity: Array  # [N, 2], m/s
    goal: Array  # [N, 2], m


def nearest(position: Array) -> Array:
    """`[...]`, the least distance between two of the points `[..., N, 2]`."""
    count = position.shape[-2]
    away = jnp.linalg.norm(position[..., :, None, :] - position[..., None, :, :], axis=-1)
    itself = jnp.broadcast_to(jnp.eye(count, dtype=bool), away.shape)
    return jnp.min(jnp.where(itself, jnp.inf, away), (-2, -1))


def _places(key: Array, swap: Swap) -> Array:
    """`[N, 2]`, the first of many draws that is far enough apart; of none is, the one furthest apart."""
    width = swap.half_width
    drawn = jax.random.uniform(key, (_DRAWS, swap.agents, 2), minval=-width, maxval=width)
    return drawn[jnp.argmax(jnp.minimum(nearest(drawn), swap.apart))]


def _reset(key: Array, *, swap: Swap) -> tuple[SwapState, Array, Array]:
    keys = named_keys(key, "start", "goal", "turn")
    if swap.swapped is None:
        start, goal = _places(keys["start"], swap), _places(keys["goal"], swap)
    else:
        angle = jax.random.uniform(keys["turn"], maxval=2 * jnp.pi)
        end = swap.swapped / 2 * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        ends = jnp.stack([end, -end])
        start, goal = (
            place + jax.random.uniform(keys[name], (2, 2), minval=-swap.noise, maxval=swap.noise)
            for name, place in (("start", ends), ("goal", -ends))
        )
    state = SwapState(start, jnp.zeros_like(start), goal)
    return state, observed(state), goal.reshape(-1)


def observed(state: SwapState) -> Array:
    """`[4 N]`, all positions, then all velocities."""
    return jnp.concatenate([state.position.reshape(-1), state.velocity.reshape(-1)])


def _step(key: Array, state: SwapState, action: Array, *, swap: Swap) -> tuple[SwapState, Stepped]:
    del key  # nothing is random
    position, velocity = pushed(state.position, state.velocity, action.reshape(-1, 2), jnp.inf)
    state = SwapState(position, velocity, state.goal)
    collided = (nearest(position) < 2 * swap.radius) & swap.ends
    success = jnp.all(within(position, state.goal, REACHED)) & ~collided
    return state, Stepped(observed(state), success.astype(jnp.float32), success | collided, success)


def _state_of(observation: Array, goal: Array) -> SwapState:
    position, velocity = observation.reshape(2, -1, 2)
    return SwapState(position, velocity, goal.reshape(-1, 2))


def swap_task(swap: Swap = Swap()) -> Task:  # noqa: B008 (immutable)
    """The task of `swap`: reward 1 when all are at their goals, where the episode ends; 0 elsewhere.

    Actions `[2 N]` are all agents' accelerations. A collision ends the episode without reward.
    """
    settings, half = (("swap", swap),), 2 * swap.agents
    groups = (("position", tuple(range(half))), ("velocity", tuple(range(half, 2 * half))))
    goal = tuple(range(half))
    spec = Spec(2 * half, half, ENV_ID, swap.limit, goal=goal, groups=groups)
    return Task(Bound(_reset, settings), Bound(_step, settings), spec, _state_of)


def homing(position: Array, velocity: Array, goal: Array) -> Array:
    """`[..., 2]` within [-1, 1], each agent's push to its goal as if it were alone, damped."""
    return jnp.clip(2.0 * (goal - position) - 2.4 * velocity, -1.0, 1.0)


def conditions(
    position: Array, velocity: Array, swap: Swap, eta: Array | float, zeta: Array | float
) -> Condition:
    """`[..., N, N - 1]`, under which agents at `[..., N, 2]` do not collide (`jdp.tasks.barriers.apart`)."""
    distance = 2 * swap.radius + MARGIN
    return apart(position, velocity, distance=distance, eta=eta, zeta=zeta, brake=BRAKE, mass=MASS)


def _begin(observation: Array) -> tuple[()]:
    del observation
    return ()


def _home(
    key: Array, state: PyTree, carry: tuple[()], observation: Array, goal: Array
) -> tuple[tuple[()], Decision]:
    del key, state
    batch = observation.shape[0]
    position, velocity = jnp.moveaxis(observation.reshape(batch, 2, -1, 2), 1, 0)
    action = homing(position, velocity, goal.reshape(batch, -1, 2))
    return carry, Decision(action.reshape(batch, -1), jnp.ones(batch, bool))


# Of every swap: agents that see their own goals alone. It has no state, and () stands for it.
HOMING = Policy(_begin, _home)
