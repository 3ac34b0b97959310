"""Noise schedules: `(n, ...) -> sigmas [n + 1]`, decreasing to 0; and matrices of levels made of them.

In a matrix `[n + 1, *prefix]` every entry of `x` has a chain of its own (`*prefix` is a prefix of the shape
of `x`, axes of length 1 allowed). All samplers take them, and leave entries alone while their level does not
change.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.diffusion.times import COSINE, FLOW, LINEAR, OFFSET, TO_DATA, Process


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


def karras_level(share: Array, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Array:
    """The level at a `share` `[...]` of the schedule `karras`: 0 is `sigma_min`, 1 `sigma_max`."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + share * (high - low)) ** rho


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


def flow_to_data(n: int) -> Array:
    """`[n + 1]`, the same from pure noise: times evenly from 0, or nearly (`times.TO_DATA`), to 1."""
    if n < 1:
        raise ValueError(f"this schedule needs n >= 1: {n=}")
    return TO_DATA.level(jnp.linspace(0.0, 1.0, n + 1, dtype=jnp.float32).at[0].set(TO_DATA.first))


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


def ddpm_linear(n: int, first: float = 1e-4, last: float = 1e-2) -> Array:
    """`[n + 1]`, the levels `sqrt((1 - abar) / abar)` of DDPM (arXiv 2006.11239) with linear betas, then 0.

    `first` and `last` are its betas `1 - alpha`, and `abar` the products of the alphas.
    """
    abar = np.cumprod(1 - np.linspace(first, last, n))
    return jnp.asarray(np.append(np.sqrt((1 - abar) / abar)[::-1], 0.0), jnp.float32)


def truncated(sigmas: Array, start: float) -> Array:
    """`start` and the levels of `sigmas` below it, `[m + 1]`: the end of a chain, for a warm start.

    Of a matrix `[n + 1, *prefix]` no level is above `start`: entries that come from above wait there, and the
    rows in which all of them wait are left out. The length depends on the values: call it outside of `jit`.

    Raises:
        ValueError: unless `sigmas[-1] < start <= sigmas[0]`, but for the rounding of `sigmas[0]`. Of a matrix
            the highest levels of its first and last row count.
    """
    levels = np.asarray(sigmas)
    first, last = levels[0].max(), levels[-1].max()
    if np.isclose(start, first, rtol=1e-6, atol=0.0):
        start = float(first)
    if not last < start <= first:
        raise ValueError(f"a chain of levels {first:g} to {last:g} cannot start at {start:g}")
    if levels.ndim > 1:
        capped = np.minimum(levels, np.float32(start))
        waiting = (capped == capped[0]).reshape(len(levels), -1).all(1)
        return jnp.asarray(capped[np.argmin(waiting) - 1 :], levels.dtype)
    return jnp.asarray(np.append(start, levels[levels < np.float32(start)]), levels.dtype)


def pyramid(sigmas: Array, length: int, delay: int = 1) -> Array:
    """`[n + 1 + delay (T - 1), 1, T]`: time step `t` goes down `sigmas` `[n + 1]` `delay t` rows late.

    The pyramid of Diffusion Forcing (arXiv 2407.01392, section 3.3): what is near is clean while what is far
    is still noise. `delay = n` draws one time step after the other, 0 all at once.

    Raises:
        ValueError: if `length < 1` or `delay < 0`.
    """
    if length < 1 or delay < 0:
        raise ValueError(f"pyramid needs length >= 1 and delay >= 0: {length=}, {delay=}")
    n = sigmas.shape[0] - 1
    row, t = jnp.arange(n + 1 + delay * (length - 1)), jnp.arange(length)
    return sigmas[jnp.clip(row[:, None] - delay * t[None], 0, n)][:, None]


def rolling(sigmas: Array, length: int) -> Array:
    """`[n / T + 1, 1, T]`: levels that rise with time, for one move of a window of T steps by one.

    Every row goes down `sigmas` `[n + 1]` by a T-th of it: time step `t` from its share `(t + 1) / T` to
    `t / T`, so that the first one ends clean and leaves the window, while pure noise may enter at the end
    (rolling diffusion, arXiv 2402.09470, section 3; streaming diffusion policy, arXiv 2406.04806).

    Raises:
        ValueError: unless n is a multiple of `length`.
    """
    n = sigmas.shape[0] - 1
    if length < 1 or n % length:
        raise ValueError(f"rolling needs a number of steps that is a multiple of the length: {n=}, {length=}")
    k = n // length
    row, t = jnp.arange(k + 1), jnp.arange(length)
    return sigmas[n - (t[None] + 1) * k + row[:, None]][:, None]


def per_group(groups: Sequence[tuple[Array, Sequence[int]]]) -> Array:
    """`[n + 1, 1, D]`: of vectors of D entries every group goes down a schedule of its own.

    As 3D Diffuser Actor (arXiv 2402.10885) has one for positions and one for rotations.

    Args:
        groups: the levels `[n + 1]` and the entries of each.

    Raises:
        ValueError: unless each of the entries 0 to D - 1 stands in one group.
    """
    entries = [entry for _, those in groups for entry in those]
    if sorted(entries) != list(range(len(entries))):
        raise ValueError(f"each of {len(entries)} entries stands in one group, not {entries}")
    columns = jnp.concatenate(
        [jnp.repeat(levels[:, None], len(those), 1) for levels, those in groups], axis=1
    )
    return columns[:, np.argsort(entries)][:, None]
