"""Noise schedules: `(n, ...) -> sigmas [n + 1]`, decreasing, the last one 0."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.diffusion.times import COSINE, FLOW, LINEAR, OFFSET, Process


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Array:
    """The schedule of EDM (arXiv 2206.00364, equation 5): `[n + 1]`.

    `sigma_k = (sigma_max^(1/rho) + k / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho`, then 0.

    Raises:
        ValueError: if `n < 2` or not `0 < sigma_min < sigma_max`.
    """
    if n < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"karras needs n >= 2 and 0 < sigma_min < sigma_max: {n=}, {sigma_min=}, {sigma_max=}"
        )
    ramp = jnp.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=jnp.float32)
    return jnp.append(ramp**rho, jnp.zeros((), jnp.float32))


def _even(n: int, process: Process, last: float) -> Array:
    """Levels at times that fall evenly from `last` to 0."""
    if n < 1 or not 0 < last <= process.last:
        raise ValueError(f"this schedule needs n >= 1 and a time within (0, {process.last}]: {n=}, {last=}")
    return process.level(jnp.linspace(last, 0.0, n + 1, dtype=jnp.float32))


def vp_cosine(n: int, last: float = COSINE.last) -> Array:
    """`[n + 1]`, times of the cosine schedule (`times.cosine_level`) evenly from `last` (level 119) to 0."""
    return _even(n, COSINE, last)


def vp_linear(n: int, last: float = LINEAR.last) -> Array:
    """`[n + 1]`, times of the VP SDE (`times.linear_level`) evenly from `last` (level 152) to 0."""
    return _even(n, LINEAR, last)


def flow(n: int, last: float = FLOW.last) -> Array:
    """`[n + 1]`, times of rectified flow evenly from `last` (level 999) to 0: Euler's steps are equal."""
    return _even(n, FLOW, last)


def ddpm_cosine(n: int, *, offset: float = OFFSET, beta_max: float = 0.999) -> Array:
    """`[n + 1]`, the levels of `n` discrete steps of DDPM with cosine betas (arXiv 2102.09672, section 3.2).

    `beta_k = min(1 - f((k + 1) / n) / f(k / n), beta_max)`, with
    `f(t) = cos^2((t + offset) / (1 + offset) pi / 2)`;
    `sigma_k = sqrt(1 / prod_{j <= k} (1 - beta_j) - 1)`, from the noisiest to the least, then 0.
    """
    if n < 1:
        raise ValueError(f"ddpm_cosine needs n >= 1: {n=}")
    f = np.square(np.cos((np.arange(n + 1) / n + offset) / (1 + offset) * np.pi / 2))
    betas = np.minimum(1 - f[1:] / f[:-1], beta_max)
    sigmas = np.sqrt(1 / np.cumprod(1 - betas) - 1)
    return jnp.asarray(np.append(sigmas[::-1], 0.0), jnp.float32)


def truncated(sigmas: Array, start: float) -> Array:
    """`start` and the levels of `sigmas` below it, `[m + 1]`: the end of a chain, for a warm start.

    Its length depends on the values: call it outside of `jit`.

    Raises:
        ValueError: unless `sigmas[-1] < start <= sigmas[0]`, but for the rounding of `sigmas[0]`.
    """
    levels = np.asarray(sigmas)
    if np.isclose(start, levels[0], rtol=1e-6, atol=0.0):
        start = float(levels[0])
    if not levels[-1] < start <= levels[0]:
        raise ValueError(f"a chain of levels {levels[0]:g} to {levels[-1]:g} cannot start at {start:g}")
    return jnp.asarray(np.append(start, levels[levels < np.float32(start)]), levels.dtype)
