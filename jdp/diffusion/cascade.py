"""A cascade over scales of time, coarse to fine, with an exact likelihood (PCDM, arXiv 2501.06999).

A trajectory is cut by the Haar wavelet (`jdp.diffusion.haar`). One denoiser draws the coarse rows, others
each scale's details, given the trajectory as it is known until then. The transform keeps volumes, so the log
density of a trajectory is the sum of those of its scales, with nothing to marginalise.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion import haar
from jdp.diffusion.haar import Scales
from jdp.diffusion.likelihood import log_density
from jdp.types import Denoiser, bind


class DetailDenoiser(Protocol):
    """`(x [B, T, D], sigma, known [B, T, D]) -> x0_hat`: a denoiser of details; a pytree.

    What is `known` are block means: row t is the mean of the rows of the trajectory that detail t is within.
    """

    def __call__(self, x: Array, sigma: Array, known: Array) -> Array: ...


class Cascade(NamedTuple):
    """Denoisers of the scales of a trajectory, each in units of its own."""

    coarse: Denoiser
    details: tuple[DetailDenoiser, ...]  # coarsest first
    stds: Array  # [L + 1, D], the units: what the scales are divided by, the coarse one first

    @property
    def levels(self) -> int:
        """L, the number of scales of details."""
        return len(self.details)


def known(coarser: Array, depth: int) -> Array:
    """Block means of `2^depth` rows, of the rows that `depth` steps of the Haar transform leave."""
    return coarser * 2 ** (-depth / 2)


def _given(detail: DetailDenoiser, known: Array, x: Array, sigma: Array) -> Array:
    return detail(x, sigma, known)


def given(detail: DetailDenoiser, known: Array) -> Denoiser:
    """The denoiser of details where the block means are `known` `[B, T, D]`."""
    return bind(_given, detail, known)


def given_coarser(x: Array, levels: int) -> list[tuple[Array, Array | None]]:
    """The scales of `x` `[..., T, D]`, coarse to fine, each with what is `known` before it: at first nothing.

    Raises:
        UserError: unless T divides by `2^levels`.
    """
    scales = haar.analysis(x, levels)
    found: list[tuple[Array, Array | None]] = [(scales.coarse, None)]
    coarser = scales.coarse
    for i, detail in enumerate(scales.details):
        found.append((detail, known(coarser, levels - i)))
        coarser = haar.finer(coarser, detail)
    return found


def log_densities(
    cascade: Cascade,
    x: Array,
    sigmas: Array,
    *,
    sigma_data: float = 1.0,
    key: Array | None = None,
    probes: int = 1,
) -> Array:
    """`[L + 1, B]`, log densities in nats of each scale of trajectories `[B, T, D]` given the coarser ones.

    Their sum over scales is that of the trajectory. Arguments: see `jdp.diffusion.likelihood.log_density`;
    levels are in the units of the scales. The units add their own, constant, volume.
    """
    keys = [None] * (cascade.levels + 1) if key is None else jax.random.split(key, cascade.levels + 1)
    found = []
    for i, (part, before) in enumerate(given_coarser(x, cascade.levels)):
        denoiser = cascade.coarse if before is None else given(cascade.details[i - 1], before)
        std = cascade.stds[i]
        units = part / jnp.broadcast_to(std, part.shape)
        own = log_density(denoiser, units, sigmas, sigma_data=sigma_data, key=keys[i], probes=probes)
        found.append(own - part.shape[-2] * jnp.sum(jnp.log(std)))
    return jnp.stack(found)


def sample(
    key: Array,
    cascade: Cascade,
    sampler: Callable[..., Array],
    sigmas: Array,
    shape: tuple[int, int, int],
) -> Array:
    """Trajectories of `shape` `[B, T, D]`, drawn scale by scale from coarse to fine; the key is consumed.

    Args:
        sampler: one of `jdp.diffusion.samplers`, or any of their kind.
        sigmas: `[n + 1]`, falling, in the units of the scales.

    Raises:
        UserError: unless T divides by `2^L`.
    """
    rows, length, channels = shape
    haar.check_length(length, cascade.levels)
    keys = jax.random.split(key, 2 * (cascade.levels + 1))

    def draw(i: int, denoiser: Denoiser, count: int) -> Array:
        start = sigmas[0] * jax.random.normal(keys[2 * i], (rows, count, channels))
        drawn = sampler(denoiser, start, sigmas, key=keys[2 * i + 1])
        return drawn * jnp.broadcast_to(cascade.stds[i], drawn.shape)

    count = length // 2**cascade.levels
    x = draw(0, cascade.coarse, count)
    for i, detail in enumerate(cascade.details):
        depth = cascade.levels - i
        x = haar.finer(x, draw(i + 1, given(detail, known(x, depth)), x.shape[-2]))
    return x


def spreads(scales: Scales) -> Array:
    """`[L + 1, D]`, the root of the mean square of each channel of each scale: a cascade's units."""
    parts = (scales.coarse, *scales.details)
    found = [jnp.sqrt(jnp.mean(jnp.square(part), axis=tuple(range(part.ndim - 1)))) for part in parts]
    return jnp.maximum(jnp.stack(found), 1e-3)
