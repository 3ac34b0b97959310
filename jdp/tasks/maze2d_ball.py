"""The ball of D4RL's maze2d and its walls, in D4RL's own coordinates (`jdp.tasks.maze2d` maps them).

After the model and the environment of D4RL's `pointmaze` (github.com/Farama-Foundation/D4RL): a sphere of
radius .1 and density 1000 on two slides of damping 1, motors of gear 100, a step of .01 s of Euler's method
with damping taken implicitly. Where no wall is in reach that is a closed form; in a contact MuJoCo steps.

Two things changed in MuJoCo since. The margins of two geoms add up, where the larger one counted: the ball
gets D4RL's .002 and walls none, which is the same in both. And a body's inverse weight, which scales how
soft a contact is, is the mean over the directions in which it can move, where it was the mean over three:
ours is put at the old value, 2/3 of one over its mass (`old_contacts`). With both, a step from each of
3 x 19,999 rows of the official files, wall contacts among them, ends within 1e-4 m/s of the next row;
without the second, within .06 m/s.
"""

import math
from typing import Any, NamedTuple

from jdp.tasks.maze2d import BODY
from jdp.tasks.mazes import Maze

TIME_STEP = 0.01  # seconds
RADIUS, MARGIN = 0.1, 0.002  # of the sphere; of a contact, between ball and wall
DENSITY = 1000.0  # kg / m^3
MASS = DENSITY * 4.0 / 3.0 * math.pi * RADIUS**3  # kg
GEAR, DAMPING = 100.0, 1.0  # N of an action of 1; N s/m
TOP_SPEED = 5.0  # m/s on each axis, to which a velocity is clipped BEFORE a step
_REACH = 0.5 - RADIUS - MARGIN - 1e-3  # from a cell's centre on: nearer ones touch no wall

State = tuple[float, float, float, float]  # q0, q1, v0, v1


class Ball(NamedTuple):
    """One ball in one maze."""

    blocked: list[list[bool]]  # [I, J], the walls
    model: Any  # MuJoCo's
    data: Any


def make_ball(maze: Maze) -> Ball:
    """The ball in `maze`."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(_xml(maze))  # type: ignore[attr-defined]
    old_contacts(model)
    return Ball((~maze.free).tolist(), model, mujoco.MjData(model))  # type: ignore[attr-defined]


def old_contacts(model: Any) -> None:
    """Changes MuJoCo's `model` of a ball on two slides, so that walls touch it as they did in D4RL."""
    model.geom_margin[model.geom_bodyid == 0] = 0.0
    model.body_invweight0[1] = (2.0 / 3.0 / model.body_mass[1], 0.0)  # it does not turn


def step(ball: Ball, state: State, action: tuple[float, float]) -> State:
    """The state one time step later; `action` within [-1, 1] is newtons over `GEAR` on each axis."""
    q0, q1, v0, v1 = state
    state = q0, q1, min(max(v0, -TOP_SPEED), TOP_SPEED), min(max(v1, -TOP_SPEED), TOP_SPEED)
    return contact_step(ball, state, action) if near_wall(ball, q0, q1) else free_step(state, action)


def free_step(state: State, action: tuple[float, float]) -> State:
    """`step` of a ball that touches nothing."""
    q0, q1, v0, v1 = state
    v0 += TIME_STEP * (GEAR * action[0] - DAMPING * v0) / (MASS + TIME_STEP * DAMPING)
    v1 += TIME_STEP * (GEAR * action[1] - DAMPING * v1) / (MASS + TIME_STEP * DAMPING)
    return q0 + TIME_STEP * v0, q1 + TIME_STEP * v1, v0, v1


def contact_step(ball: Ball, state: State, action: tuple[float, float]) -> State:
    """`step` by MuJoCo, wherever the ball is."""
    import mujoco

    data = ball.data
    data.qpos[:], data.qvel[:], data.ctrl[:] = state[:2], state[2:], action
    data.qacc_warmstart[:] = 0.0  # so that a step depends on its state alone
    mujoco.mj_step(ball.model, data)  # type: ignore[attr-defined]
    return (*data.qpos.tolist(), *data.qvel.tolist())


def near_wall(ball: Ball, q0: float, q1: float) -> bool:
    """Whether the ball may touch a wall: one of those next to its cell, on its side."""
    i, j = math.floor(q0 + (0.5 + BODY)), math.floor(q1 + (0.5 + BODY))
    u0, u1 = q0 + BODY - i, q1 + BODY - j  # from the cell's centre
    d0 = 0 if -_REACH < u0 < _REACH else (1 if u0 > 0 else -1)
    d1 = 0 if -_REACH < u1 < _REACH else (1 if u1 > 0 else -1)
    if not d0 and not d1:
        return False
    blocked = ball.blocked
    return blocked[i + d0][j] or blocked[i][j + d1] or blocked[i + d0][j + d1]


def _xml(maze: Maze) -> str:
    walls = "".join(
        f'<geom type="box" pos="{i + 1} {j + 1} 0" size=".5 .5 .2"/>'
        for i, row in enumerate(maze.rows)
        for j, mark in enumerate(row)
        if mark == "#"
    )
    axes = (("0", "1 0 0"), ("1", "0 1 0"))
    slides = "".join(f'<joint name="{n}" type="slide" axis="{a}" damping="{DAMPING}"/>' for n, a in axes)
    motors = "".join(
        f'<motor joint="{n}" gear="{GEAR}" ctrllimited="true" ctrlrange="-1 1"/>' for n, _ in axes
    )
    option = f'<option timestep="{TIME_STEP}" gravity="0 0 0" iterations="20" integrator="Euler"/>'
    geoms = f'<default><geom density="{DENSITY}" condim="1"/></default>'
    sphere = f'<geom type="sphere" size="{RADIUS}" margin="{MARGIN}"/>'
    body = f'<body pos="{1 + BODY} {1 + BODY} 0">{sphere}{slides}</body>'
    world = f"<worldbody>{walls}{body}</worldbody>"
    return f"<mujoco>{option}{geoms}{world}<actuator>{motors}</actuator></mujoco>"
