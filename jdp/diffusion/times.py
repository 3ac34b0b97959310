"""The time of a noising process as a function of the noise level, and back.

Networks of VP diffusion and of rectified flow were trained on a time `t` in (0, 1). In the coordinate
`x = x0 + sigma eps` time is only a name of the level, so these closed forms are all that is left of them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

OFFSET = 0.008  # s of the cosine schedule
_ANGLE = OFFSET / (1 + OFFSET) * math.pi / 2
_SIN, _COS = math.sin(_ANGLE), math.cos(_ANGLE)
BETA_MIN, BETA_MAX = 0.1, 20.0
_ROOT_MIN, _ROOT_MAX = math.sqrt(BETA_MIN), math.sqrt(BETA_MAX)


def cosine_level(t: Array) -> Array:
    """`sigma` of the cosine schedule (arXiv 2102.09672, equation 17) at time `t` in [0, 1).

    `alpha^2 = cos^2(theta) / cos^2(theta_0)`, `theta = (t + s) / (1 + s) pi / 2`; written with
    `cos^2 theta_0 - cos^2 theta = sin(theta - theta_0) sin(theta + theta_0)`, exact at small `t`.
    """
    turned = t * (math.pi / 2 / (1 + OFFSET))
    return jnp.sqrt(jnp.sin(turned) * jnp.sin(turned + 2 * _ANGLE)) / jnp.cos(turned + _ANGLE)


def cosine_time(sigma: Array) -> Array:
    """The inverse of `cosine_level`, within [0, 1]."""
    root = jnp.sqrt(jnp.square(sigma) + _SIN**2)  # tan(theta) cos(theta_0)
    gap = jnp.square(sigma) / ((root + _SIN) * _COS)  # tan(theta) - tan(theta_0), without cancellation
    turned = jnp.arctan(gap / (1 + root * (_SIN / _COS**2)))
    return jnp.clip(turned * ((1 + OFFSET) * 2 / math.pi), 0.0, 1.0)


def linear_level(t: Array) -> Array:
    """`sigma` of the VP SDE (arXiv 2011.13456, equation 33) with `beta(t)` from .1 to 20: `sqrt(e^B - 1)`."""
    return jnp.sqrt(jnp.expm1(t * (BETA_MIN + 0.5 * (BETA_MAX - BETA_MIN) * t)))


def linear_time(sigma: Array) -> Array:
    """The inverse of `linear_level`, within [0, 1]: beyond level 152 the time stays at 1."""
    total = jnp.log1p(jnp.square(sigma))
    t = 2 * total / (BETA_MIN + jnp.sqrt(BETA_MIN**2 + 2 * (BETA_MAX - BETA_MIN) * total))
    return jnp.clip(t, 0.0, 1.0)


def scaled_linear_level(t: Array) -> Array:
    """`sigma = sqrt(e^B - 1)`, `beta(t)` from .1 to 20 as `linear_level`, of which the root is linear in `t`.

    It is the "scaled-linear" schedule of latent diffusion (arXiv 2112.10752) in continuous time, whose 1000
    steps have the betas .0001 to .02.
    """
    slope = _ROOT_MAX - _ROOT_MIN
    total = t * (BETA_MIN + slope * t * (_ROOT_MIN + slope * t / 3))  # the integral of (root + slope t)^2
    return jnp.sqrt(jnp.expm1(total))


def scaled_linear_time(sigma: Array) -> Array:
    """The inverse of `scaled_linear_level`, within [0, 1]: beyond level 36 the time stays at 1."""
    rise = 3 * (_ROOT_MAX - _ROOT_MIN) * jnp.log1p(jnp.square(sigma))  # of the cube of the root
    root = jnp.cbrt(_ROOT_MIN**3 + rise)
    gap = rise / (jnp.square(root) + root * _ROOT_MIN + BETA_MIN)  # root - first root, without cancellation
    return jnp.clip(gap / (_ROOT_MAX - _ROOT_MIN), 0.0, 1.0)


def flow_level(t: Array) -> Array:
    """`sigma = t / (1 - t)` of rectified flow, `x_t = (1 - t) x0 + t eps` (arXiv 2209.03003)."""
    return t / (1 - t)


def flow_time(sigma: Array) -> Array:
    """`t = sigma / (1 + sigma)`."""
    return sigma / (1 + sigma)


def to_data_level(t: Array) -> Array:
    """`sigma = (1 - t) / t` of a flow from noise to data, `x_t = t x0 + (1 - t) eps`."""
    return (1 - t) / t


def to_data_time(sigma: Array) -> Array:
    """`t = 1 / (1 + sigma)`."""
    return 1 / (1 + sigma)


class Process(NamedTuple):
    """A noising process: time and level, each from the other, and where training and sampling begin."""

    level: Callable[[Array], Array]
    time: Callable[[Array], Array]
    last: float  # the largest time that is used
    first: float = 1e-3  # the smallest that is trained


COSINE = Process(cosine_level, cosine_time, last=0.9946)  # level 119; the level is infinite at 1
LINEAR = Process(linear_level, linear_time, last=1.0)  # level 152
SCALED_LINEAR = Process(scaled_linear_level, scaled_linear_time, last=1.0)  # level 36
FLOW = Process(flow_level, flow_time, last=0.999)  # level 999
# The same with its time reversed, from pure noise (but for the last bit of a float32) at 0 to data at 1.
TO_DATA = Process(to_data_level, to_data_time, last=1.0, first=2.0**-24)


def at_same_time(sigma: Array, own: Process, other: Process) -> Array:
    """The levels of `other` at the times at which `own` has the levels `sigma` `[...]`; 0 stays 0."""
    return other.level(jnp.minimum(own.time(sigma), other.last))
