"""What a plan costs the controller that has to follow it: embodiment-aware guidance (arXiv 2510.02614)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.errors import UserError, check_settings
from jdp.learning.guides import Cost
from jdp.types import Bound


class Controller(Protocol):
    """A controller in closed loop with the body that it moves, as a differentiable function; hashable."""

    def __call__(self, path: Array) -> Array:
        """`[B, T, P]`, where the body is when it should be at the rows of `path` `[B, T, P]`."""
        ...


class Body(NamedTuple):
    """A double integrator at B places."""

    position: Array  # [B, P]
    velocity: Array  # [B, P]


@lru_cache
def regulator(dt: float, effort: float) -> tuple[float, float]:
    """`(k, d)`: the acceleration `k gap + d rate` that minimises `sum gap^2 + effort acceleration^2`.

    The linear-quadratic regulator of `p' = p + dt v + dt^2 u / 2, v' = v + dt u`, by iteration of Riccati's
    equation to its fixed point.
    """
    a, b = np.array([[1.0, dt], [0.0, 1.0]]), np.array([[dt**2 / 2], [dt]])
    cost, value, gain = np.diag([1.0, 0.0]), np.eye(2), np.zeros((1, 2))
    for _ in range(10_000):
        gain = np.linalg.solve(effort + b.T @ value @ b, b.T @ value @ a)
        better = cost + a.T @ value @ (a - b @ gain)
        if np.abs(better - value).max() < 1e-12 * max(1.0, np.abs(value).max()):
            break
        value = better
    return float(gain[0, 0]), float(gain[0, 1])


@dataclass(frozen=True)
class BoundedTracker:
    """A linear-quadratic regulator of a double integrator whose accelerations are bounded.

    It is told the path's own velocity and acceleration, so that what it can do it follows closely.
    """

    dt: float = 0.1
    """Time from one row of a path to the next."""
    bound: float = 1.0
    """The largest acceleration of an entry, in units of the path a unit of time squared."""
    effort: float = 1e-3
    """Of squared accelerations beside squared gaps."""
    softness: float = 0.1
    """Share of the bound over which accelerations saturate smoothly; 0 cuts them, and has no slope beyond."""

    def __post_init__(self) -> None:
        limits = {name: (getattr(self, name), 1e-9, np.inf) for name in ("dt", "bound", "effort")}
        check_settings("BoundedTracker", **limits, softness=(self.softness, 0, 1))

    def cut(self, acceleration: Array) -> Array:
        """Within the bound: the identity but near it, where it is a smooth minimum."""
        if self.softness == 0:
            return jnp.clip(acceleration, -self.bound, self.bound)
        s = self.softness * self.bound  # softplus(x + b) - softplus(x - b) - b, of width s
        soft = jax.nn.softplus((acceleration + self.bound) / s) - jax.nn.softplus(
            (acceleration - self.bound) / s
        )
        return s * soft - self.bound

    def __call__(self, path: Array) -> Array:
        """Where the body is, `[B, T, P]`; it begins in row 0, at the path's velocity."""
        gain, rate = regulator(self.dt, self.effort)
        velocity = jnp.diff(path, axis=1, append=path[:, -1:]) / self.dt
        wished = jnp.diff(velocity, axis=1, append=velocity[:, -1:]) / self.dt

        def step(body: Body, row: tuple[Array, Array, Array]) -> tuple[Body, Array]:
            place, speed, push = row
            u = self.cut(push + gain * (place - body.position) + rate * (speed - body.velocity))
            position = body.position + self.dt * body.velocity + 0.5 * self.dt**2 * u
            return Body(position, body.velocity + self.dt * u), position

        place, speed, push = (jnp.swapaxes(x[:, :-1], 0, 1) for x in (path, velocity, wished))
        _, places = jax.lax.scan(step, Body(path[:, 0], velocity[:, 0]), (place, speed, push))
        return jnp.concatenate([path[:, :1], jnp.swapaxes(places, 0, 1)], axis=1)


def tracking_cost(controller: Controller, entries: tuple[int, ...] | None = None) -> Cost:
    """The sum over a plan's rows of the squared gap between it and where `controller` takes the body.

    A cost for `jdp.planners.cost_guide`: plans are drawn to those that the body at hand can follow, whatever
    body the data are of (EADP, arXiv 2510.02614). Its gradient passes through the whole roll-out. From one
    mode to another it moves along the denoiser's Jacobian: of sharp and wide turns in equal shares
    `cost_guide(..., 3.0, covariance="jacobian")` draws 99.6 % that a body of bounded acceleration takes, and
    the root mean square tracking error falls by 83 %; the isotropic covariance bends the sharp ones instead.
    The paper takes the gradient at the noised actions, cuts each entry of a step, and puts noise back between
    inner repeats: here sampler `churned_euler` puts it back, and `optimise_guide` repeats within a ball.

    Args:
        entries: of the observation that are a place; None: all. Plans hold states, so this is of planners;
            for a policy whose actions are places write `lambda observation, action:
            tracking_error(controller, action)`.
    """
    return Bound(_tracking_cost, (("controller", controller), ("entries", entries)))


def tracking_error(controller: Callable[[Array], Array], path: Array) -> Array:
    """`[B]`, the summed squared gap of paths `[B, T, P]` from where `controller` takes the body."""
    return jnp.sum(jnp.square(controller(path) - path), axis=(1, 2))


def _tracking_cost(
    observation: Array, action: Array, *, controller: Controller, entries: tuple[int, ...] | None
) -> Array:
    del action
    if observation.shape[1] < 2:
        raise UserError(
            "tracking_cost is of planned states, which a policy has not: give a planner, or a cost of "
            "actions that are places (jdp.learning.tracking.tracking_error)"
        )
    at = slice(None) if entries is None else jnp.array(entries)
    return tracking_error(controller, observation[..., at])
