"""PointMaze's plans as actions by Diffuser's own controller: towards the next step's position and velocity.

Janner et al. 2022 (arXiv 2205.09991), section 5.1: in Maze2D a plan is made once, and its states are followed
by a controller, for nothing in the data stays at a goal.
"""

import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.tasks.maze2d_ball import TIME_STEP
from jdp.types import Plan, PyTree, Spec

FOREVER = 1 << 30  # steps that a plan is followed which is made once


def check_waypoints(spec: Spec) -> None:
    """Raises `UserError` unless observations are PointMaze's `[x, y, vx, vy]` and actions its forces."""
    name = spec.env_id or "the task"
    if not name.startswith("PointMaze_") or (spec.observation_dim, spec.action_dim) != (4, 2):
        raise UserError(f"control waypoints steers PointMaze's ball, not {name}: choose control model")


def state_at(rows: Array, stride: int, step: Array) -> Array:
    """`[B, 4]`, positions and velocities `step` `[B]` steps after the first of `rows` `[B, T, 4]`.

    Between rows, `stride` steps apart, the cubic that has their positions and velocities (Hermite's); from
    the last row on its position, at rest.
    """
    last = rows.shape[1] - 1
    row = jnp.minimum(step // stride, last - 1)
    here, there = (rows[jnp.arange(rows.shape[0]), r] for r in (row, row + 1))
    seconds = stride * TIME_STEP
    u = ((step - row * stride) / stride).astype(rows.dtype)[:, None]
    way, v0, v1 = there[:, :2] - here[:, :2], seconds * here[:, 2:], seconds * there[:, 2:]
    square, cube = 3 * way - 2 * v0 - v1, v0 + v1 - 2 * way
    position = here[:, :2] + u * (v0 + u * (square + u * cube))
    velocity = (v0 + u * (2 * square + 3 * u * cube)) / seconds
    moving, end = jnp.concatenate([position, velocity], axis=-1), rows[:, -1, :2]
    at_rest = jnp.concatenate([end, jnp.zeros_like(end)], axis=-1)
    return jnp.where((step >= last * stride)[:, None], at_rest, moving)


def approached(
    key: Array, state: PyTree, plan: Plan, elapsed: Array, observation: Array, *, stride: int
) -> Array:
    """`[B, 2]`, the difference to the plan's next position plus that to its next velocity, within -1 .. 1."""
    del key, state
    away = state_at(plan.observation, stride, elapsed + 1) - observation
    return jnp.clip(away[:, :2] + away[:, 2:], -1, 1)
