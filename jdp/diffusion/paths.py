"""Paths as their steps: differences, windowed integration, and a loss of both (HDP, arXiv 2602.22801).

A denoiser of steps says smooth paths, whose errors add up on the way; one of waypoints says where the path
goes, and jerks. HDP predicts steps, and sees beside their error that of the waypoints that they lead to.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.losses import Beside
from jdp.types import Bound


def differences(path: Array) -> Array:
    """`[B, T, D]`, the steps of `path` `[B, T, D]`, of which the first is from 0."""
    return jnp.diff(path, axis=1, prepend=jnp.zeros_like(path[:, :1]))


def integrated(steps: Array, window: int | None = None) -> Array:
    """`[B, T, D]`, the path of `steps` `[B, T, D]` from 0: the inverse of `differences`.

    Args:
        window: gradients of a row pass to the steps of its own window of so many rows, `[k window,
            (k + 1) window)`, alone: what lies before it is where the path is. None: to all steps up to it.
    """
    path = jnp.cumsum(steps, axis=1)
    if window is None or window >= path.shape[1]:
        return path
    begun = jnp.pad(path[:, window - 1 :: window], ((0, 0), (1, 0), (0, 0)))
    before = jnp.repeat(begun, window, axis=1)[:, : path.shape[1]]
    return path + (jax.lax.stop_gradient(before) - before)  # of the value of the path, bit for bit


def _waypoints(denoised: Array, x0: Array, *, length: int, weight: float, window: int | None) -> Array:
    steps, aim = (x.reshape(x.shape[0], length, -1) for x in (denoised, x0))
    error = jnp.square(integrated(steps, window) - integrated(aim))
    return (weight * error).reshape(x0.shape)


def waypoint_loss(length: int, weight: float = 0.05, window: int | None = 10) -> Beside:
    """`weight |integrated(denoised) - integrated(x0)|^2` of `length` steps `[B, T, D]`, flat or not.

    For `Formulation.beside`; the defaults are the paper's.
    """
    return Bound(_waypoints, (("length", length), ("weight", weight), ("window", window)))
