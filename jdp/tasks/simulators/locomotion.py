"""Gymnasium's Hopper, HalfCheetah and Walker2d (`-v5`) by MuJoCo MJX: the same XML files, as pure functions.

For accelerators: on a CPU the compilation takes a minute, and a step far longer than in C. Needs
`pip install "jdp[mjx]"`.
"""

import contextlib
import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.tasks.environments import make_env
from jdp.types import Bound, Spec, Stepped, Task, named_keys


class Body(NamedTuple):
    """What Gymnasium's class of a task says; v5's defaults."""

    control_cost: float
    reset_noise: float
    healthy_height: tuple[float, float] | None = None  # m; None: never falls, and no reward for standing
    healthy_angle: tuple[float, float] = (-float("inf"), float("inf"))  # rad
    healthy_state: float = float("inf")  # bound of every other number
    normal_speeds: bool = False  # whether the first speeds are Gaussian
    speed_limit: float = float("inf")  # to which observed speeds are clipped


BODIES = {
    "Hopper-v5": Body(1e-3, 5e-3, (0.7, float("inf")), (-0.2, 0.2), 100.0, speed_limit=10.0),
    "HalfCheetah-v5": Body(0.1, 0.1, normal_speeds=True),
    "Walker2d-v5": Body(1e-3, 5e-3, (0.8, 2.0), (-1.0, 1.0), speed_limit=10.0),
}


class BodyState(NamedTuple):
    """One body."""

    position: Array  # [Q], MuJoCo's qpos; entry 0 is the way so far
    velocity: Array  # [V], its qvel
    warm: Array  # [V], the acceleration that its solver begins with


class _Model(NamedTuple):
    model: Any  # MJX's
    data: Any
    skip: int  # steps of the simulator in one of the task
    seconds: float  # of a step of the task
    first: tuple[Array, Array]


@contextlib.contextmanager
def _mjx_broadcasts() -> Iterator[None]:
    """MJX's code relies on what JAX refuses where a user asked it to be strict."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@lru_cache
def _model(env_id: str) -> _Model:
    with contextlib.redirect_stdout(io.StringIO()):  # where it says which other backends are missing
        from mujoco import mjx
    env = make_env(env_id)
    inner: Any = env.unwrapped
    with jax.ensure_compile_time_eval(), _mjx_broadcasts():
        found = mjx.put_model(inner.model)
        first = jnp.asarray(inner.init_qpos, jnp.float32), jnp.asarray(inner.init_qvel, jnp.float32)
        model = _Model(found, mjx.make_data(inner.model), inner.frame_skip, inner.dt, first)
    env.close()
    return model


def _reset(key: Array, *, env_id: str) -> tuple[BodyState, Array, Array]:
    keys, body, (position, velocity) = (
        named_keys(key, "position", "speed"),
        BODIES[env_id],
        _model(env_id).first,
    )
    scale = body.reset_noise
    position += scale * jax.random.uniform(keys["position"], position.shape, minval=-1.0, maxval=1.0)
    if body.normal_speeds:
        velocity += scale * jax.random.normal(keys["speed"], velocity.shape)
    else:
        velocity += scale * jax.random.uniform(keys["speed"], velocity.shape, minval=-1.0, maxval=1.0)
    state = BodyState(position, velocity, jnp.zeros_like(velocity))
    return state, _observed(state, body), jnp.zeros(0)


def _observed(state: BodyState, body: Body) -> Array:
    speeds = jnp.clip(state.velocity, -body.speed_limit, body.speed_limit)
    return jnp.concatenate([state.position[1:], speeds])


def _is_healthy(state: BodyState, body: Body) -> Array:
    if body.healthy_height is None:
        return jnp.ones((), bool)
    (low, high), (left, right) = body.healthy_height, body.healthy_angle
    height, angle = state.position[1], state.position[2]
    others = jnp.concatenate([state.position[2:], state.velocity])
    upright = (low < height) & (height < high) & (left < angle) & (angle < right)
    return upright & jnp.all(jnp.abs(others) < body.healthy_state)


def _step(key: Array, state: BodyState, action: Array, *, env_id: str) -> tuple[BodyState, Stepped]:
    del key  # nothing is random
    from mujoco import mjx

    body, model = BODIES[env_id], _model(env_id)
    data = model.data.replace(
        qpos=state.position, qvel=state.velocity, qacc_warmstart=state.warm, ctrl=action
    )
    with _mjx_broadcasts():
        data = jax.lax.fori_loop(0, model.skip, lambda _, data: mjx.step(model.model, data), data)
    speed = (data.qpos[0] - state.position[0]) / model.seconds
    state = BodyState(data.qpos, data.qvel, data.qacc_warmstart)
    healthy, never = _is_healthy(state, body), jnp.zeros((), bool)
    standing = 0.0 if body.healthy_height is None else healthy.astype(jnp.float32)
    reward = speed + standing - body.control_cost * jnp.sum(jnp.square(action))
    return state, Stepped(_observed(state, body), reward, ~healthy, never)


def locomotion_task(env_id: str) -> Task:
    """The simulator of "Hopper-v5", "HalfCheetah-v5" or "Walker2d-v5".

    Raises:
        UserError: for another task, or where MJX is not installed.
    """
    if env_id not in BODIES:
        raise UserError(f"{env_id} is none of {', '.join(BODIES)}")
    try:
        found = _model(env_id).first
    except ImportError as error:
        raise UserError(f'{env_id} as a JAX task needs MuJoCo MJX: pip install "jdp[mjx]"') from error
    settings = (("env_id", env_id),)
    width = len(found[0]) + len(found[1]) - 1
    actions = int(_model(env_id).model.nu)
    return Task(Bound(_reset, settings), Bound(_step, settings), Spec(width, actions, env_id, 1000))
