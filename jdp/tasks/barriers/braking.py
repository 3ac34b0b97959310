"""Barriers of point masses that can brake, exact in the steps of their simulators.

Two points keep a distance if a line can be drawn between them, half of the distance from each, before which
either can stop. Along the line's normal `n` points i and j have `gap = n . (p_i - p_j) - distance` and come
near with `w_i = -n . v_i` and `w_j = n . v_j`. What is left when both brake is the barrier:

    h = gap - (max(w_i, 0)^2 + max(w_j, 0)^2) / (2 brake)

in metres (braking distances as barriers: Wang, Ames and Egerstedt 2016, arXiv 1609.00651). Each of the two
answers for its own braking distance and half of `h`, and may use up half of `min(eta h^zeta time_step, h)` in
a step, by its own eta and zeta (Gao, Yang and Prorok 2023, arXiv 2303.04313). A step of constant acceleration
leads to a new `h` along `n` that is a quadratic function of `n . u`, rising with it: so the condition is one
bound on `n . u`, in closed form (`speed_limit`). It says that

    h(after) >= h - min(eta h^zeta time_step, h) >= 0

whatever the other does that keeps its own condition. Full braking along `n` always keeps it. `n` is the
normal with the largest `h`, which both find alike: since the next step's `h` is the largest too, it is no
smaller than that along this step's normal, and what is 0 or above stays so from step to step, not merely from
instant to instant. (The normal is found to 1e-4 m by `_TURNS` steps of Newton's method.)

Several conditions at once may ask for more than the action has; so `brake` should be less than its all.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.tasks import maze2d_ball
from jdp.tasks.barriers.conditions import power

_TURNS = 5  # steps of Newton's method to the normal
_TILTS = (
    -2.0,
    0.0,
    2.0,
)  # tangents of the angles from the straight line at which they begin: there may be two peaks


class PointMass(NamedTuple):
    """A point in the plane: `v' = (1 - drag T) v + T push u` and `p' = p + T ((1 - late) v + late v')`."""

    time_step: float = 0.1  # T, s
    push: float = 1.0  # m/s^2, of an action of 1 on one axis
    drag: float = 0.0  # 1/s
    late: float = 0.5  # 1/2: the closed form of a constant push; 1: Euler's method with the new velocity


_IMPLICIT = maze2d_ball.MASS + maze2d_ball.TIME_STEP * maze2d_ball.DAMPING  # kg, damping taken implicitly
BALL = PointMass(
    maze2d_ball.TIME_STEP, maze2d_ball.GEAR / _IMPLICIT, maze2d_ball.DAMPING / _IMPLICIT, late=1.0
)  # of PointMaze and maze2d, away from walls


class Condition(NamedTuple):
    """What an action is to keep: `row . u >= bound`; and how things stand."""

    row: Array  # [..., A]
    bound: Array  # [...]
    barrier: Array  # [...], h in m, at least 0 where all is well


def spare(offset: Array, own: Array, other: Array, distance: Array, brake: float) -> tuple[Array, Array]:
    """`(n [..., 2], h [...])`: the normal with the largest barrier, from the other point to this one.

    Args:
        offset: `[..., 2]`, this point's position less the other's, m.
        own: `[..., 2]`, this point's velocity, m/s; `other` is the other's.
        distance: `[...]`, m, that is to stay between them.
    """
    offset, own, other = (x[..., None, :] for x in jnp.broadcast_arrays(offset, own, other))
    straight = _unit(offset)
    normal = jnp.concatenate([_unit(straight + tilt * _across(straight)) for tilt in _TILTS], -2)
    for _ in range(_TURNS):
        across = _across(normal)
        near, far = _closing(normal, own, other)
        pull = offset + (near[..., None] * own - far[..., None] * other) / brake
        bend = jnp.where(near > 0, jnp.square(_dot(across, own)), 0.0)
        bend = bend + jnp.where(far > 0, jnp.square(_dot(across, other)), 0.0)
        turn = _dot(across, pull) / (jnp.abs(_dot(normal, pull)) + bend / brake + 1e-9)
        normal = _unit(normal + jnp.clip(turn, -1.0, 1.0)[..., None] * across)
    near, far = _closing(normal, own, other)
    h = _dot(normal, offset) - (jnp.square(near) + jnp.square(far)) / (2 * brake)
    at = jnp.argmax(h, -1)[..., None]
    normal = jnp.take_along_axis(normal, at[..., None], -2)[..., 0, :]
    return normal, jnp.take_along_axis(h, at, -1)[..., 0] - distance


def _across(normal: Array) -> Array:
    return jnp.stack([-normal[..., 1], normal[..., 0]], -1)


def _closing(normal: Array, own: Array, other: Array) -> tuple[Array, Array]:
    return jnp.maximum(-_dot(normal, own), 0.0), jnp.maximum(_dot(normal, other), 0.0)


def _dot(a: Array, b: Array) -> Array:
    return jnp.sum(a * b, -1)


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def usable(h: Array, eta: Array | float, zeta: Array | float, time_step: float) -> Array:
    """`[...]`, what of `h` a step may use up: `eta h^zeta time_step`, at most all; below 0, win back."""
    return jnp.clip(eta * power(h, zeta) * time_step, -jnp.abs(h), jnp.abs(h))


def speed_limit(closing: Array, use: Array, brake: float, mass: PointMass) -> Array:
    """`[...]`, the fastest that a point may come near at the END of a step, m/s; below 0: it must go away.

    The largest `w'` at which the step's way and what braking then takes use up no more than `use` m beyond
    the present braking distance.

    Args:
        closing: `[...]`, how fast it comes near now, m/s; below 0 where it goes away.
    """
    step, late = mass.time_step, mass.late
    free = jnp.square(jnp.maximum(closing, 0.0)) / (2 * brake) + use - step * (1 - late) * closing
    lag = brake * step * late
    braked = jnp.sqrt(lag**2 + 2 * brake * jnp.maximum(free, 0.0)) - lag
    return jnp.where(free >= 0, braked, free / (step * late))


def _condition(
    normal: Array, h: Array, velocity: Array, use: Array, brake: float, mass: PointMass
) -> Condition:
    closing = -_dot(normal, velocity)
    limit = speed_limit(closing, use, brake, mass)
    bound = ((1 - mass.drag * mass.time_step) * closing - limit) / (mass.time_step * mass.push)
    return Condition(normal, bound, h)


def clear(
    position: Array,
    velocity: Array,
    centres: Array,
    radii: Array,
    *,
    eta: Array | float,
    zeta: Array | float = 1.0,
    brake: float,
    mass: PointMass,
) -> Condition:
    """The conditions `[..., m]` on the action of a point that is to stay out of m discs.

    Args:
        position: `[..., 2]`, m, as `velocity`, m/s.
        centres: `[m, 2]`, m, of discs with `radii` `[m]`.
        eta: of the barrier condition, 1/s where `zeta` is 1; `1 / time_step` and above only forbids what
            could no longer be stopped.
        brake: m/s^2 that the point is taken to have, at most `mass.push`.
    """
    own, still = velocity[..., None, :], jnp.zeros_like(velocity)[..., None, :]
    lead = position.shape[:-1]
    offset = position[..., None, :] - jnp.broadcast_to(centres, (*lead, *centres.shape))
    normal, h = spare(offset, own, still, jnp.broadcast_to(radii, (*lead, *radii.shape)), brake)
    return _condition(normal, h, own, usable(h, eta, zeta, mass.time_step), brake, mass)


def apart(
    position: Array,
    velocity: Array,
    *,
    distance: float,
    eta: Array | float,
    zeta: Array | float = 1.0,
    brake: float,
    mass: PointMass,
) -> Condition:
    """The conditions `[..., N, N - 1]` on each of N points' own actions, so that all keep `distance` m apart.

    Decentralised: a point's conditions depend on what it sees of the others, and hold whatever they do that
    keep theirs.

    Args:
        position: `[..., N, 2]`, m, as `velocity`, m/s.
        eta: `[..., N]` or one for all, as `zeta`; see `clear`.
        brake: as in `clear`, of all points.
    """
    others = _others(position.shape[-2])
    own = velocity[..., None, :]
    offset = position[..., None, :] - position[..., others, :]
    normal, h = spare(offset, own, velocity[..., others, :], jnp.asarray(distance), brake)
    eta, zeta = (jnp.asarray(x)[..., None] if jnp.ndim(x) else x for x in (eta, zeta))
    use = usable(h, eta, zeta, mass.time_step) / 2
    return _condition(normal, h, own, use, brake, mass)


def _others(count: int) -> np.ndarray:
    """`[N, N - 1]`, of each point the numbers of the others."""
    return np.array([[j for j in range(count) if j != i] for i in range(count)]).reshape(count, count - 1)
