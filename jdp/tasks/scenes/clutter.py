"""jdp/Clutter-v0, jdp/Shaken-v0: a pushed point among discs that lie anew in every episode; its expert plans.

All is seen from the point, so the scene may lie anywhere, and what is seen tells the state but for that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.tasks.scenes.point import pushed, within
from jdp.tasks.scenes.scene import Planner, Scene, scene
from jdp.types import Bound, Stepped, named_keys

DISCS, RADIUS = 3, 0.25  # how many, and m from the middle of a disc: failure
REACHED = 0.1  # m from the goal: success
FIELD = (0.6, 0.5)  # m, half-widths of where the middles of discs lie
_ENDS, _NOISE = 1.0, (0.1, 0.3)  # m along x from the middle to start and goal, half-widths around them
_SPEED, _FORCE = 0.7, 0.5  # shaken: m/s at the start, at most; m/s^2, standard deviation of a force
_MARGIN, _NEAR = 0.15, 1.0  # m from a disc, within which plans pay; for so many m in the goal's direction
_EFFORT = 0.05  # m, what a push of 1 m/s^2 costs plans: of many ways that are as good one is best, and smooth
_WON, _LOST = 1.0, -1.0  # what plans gain at the goal, and in a disc


class ClutterState(NamedTuple):
    """One point."""

    position: Array  # [2]
    velocity: Array  # [2]
    goal: Array  # [2]
    discs: Array  # [DISCS, 2], their middles


def reset(key: Array, *, shaken: bool) -> ClutterState:
    """At the left of the discs, at rest but where it is `shaken`; the goal is at their right."""
    keys = named_keys(key, "start", "goal", "discs", "velocity")
    start, goal = (
        jnp.array([end, 0.0]) + jnp.array(_NOISE) * jax.random.uniform(keys[name], (2,), minval=-1.0)
        for name, end in (("start", -_ENDS), ("goal", _ENDS))
    )
    discs = jnp.array([FIELD]) * jax.random.uniform(keys["discs"], (DISCS, 2), minval=-1.0)
    speed = _SPEED * jax.random.uniform(keys["velocity"], (2,), minval=-1.0)
    return ClutterState(start, speed if shaken else jnp.zeros(2), goal, discs)


def observe(state: ClutterState) -> Array:
    """`[4 + 2 * DISCS]`: velocity, and from the point the goal and the discs, the nearest one first."""
    discs = state.discs - state.position[None]
    order = jnp.argsort(jnp.sum(jnp.square(discs), axis=-1))
    return jnp.concatenate([state.velocity, state.goal - state.position, discs[order].reshape(-1)])


def state_of(observation: Array) -> ClutterState:
    """The state that is observed so, with the point at the origin."""
    discs = observation[4:].reshape(DISCS, 2)
    return ClutterState(jnp.zeros(2), observation[:2], observation[2:4], discs)


def clearance(state: ClutterState) -> Array:
    """`[]`, metres to the nearest disc; negative within one."""
    return jnp.min(jnp.linalg.norm(state.discs - state.position[None], axis=-1)) - RADIUS


def move(
    key: Array, state: ClutterState, action: Array, *, shaken: bool
) -> tuple[ClutterState, Array, Array]:
    """Success is the goal, at any speed; where a step ends within a disc, it fails."""
    force = _FORCE * jax.random.normal(key, (2,)) if shaken else jnp.zeros(2)
    position, velocity = pushed(state.position, state.velocity, action + force)
    state = state._replace(position=position, velocity=velocity)
    return state, within(position, state.goal, REACHED), clearance(state) < 0


def _planned(key: Array, state: ClutterState, action: Array) -> tuple[ClutterState, Stepped]:
    """A step as plans see it: no force, and a reward for the way to the goal and away from discs."""
    after, success, failed = move(key, state, action, shaken=False)
    nearer = jnp.linalg.norm(state.goal - state.position) - jnp.linalg.norm(after.goal - after.position)
    near = jnp.maximum(_MARGIN - clearance(after), 0.0)
    paid = _NEAR * near + _EFFORT * jnp.sum(jnp.square(action))
    reward = nearer - paid + jnp.where(failed, _LOST, jnp.where(success, _WON, 0.0))
    return after, Stepped(observe(after), reward, success | failed, success & ~failed)


def clutter_scene(*, shaken: bool) -> Scene:
    """The scene of the data, or the one in which forces push the point, from the start on."""
    settings = (("horizon", 25), ("samples", 128), ("elites", 20), ("std", 0.8))
    return scene(
        "jdp/Shaken-v0" if shaken else "jdp/Clutter-v0",
        60,
        (("velocity", 2), ("goal", 2), ("discs", 2 * DISCS)),
        reset=Bound(reset, (("shaken", shaken),)),
        observe=observe,
        move=Bound(move, (("shaken", shaken),)),
        expert=Planner("cem", settings, _planned),
        noise=0.3,
        data="jdp/Clutter-v0",
        state_of=state_of,
    )
