"""The Haar wavelet along time: coarse rows and details, of the same volume as the trajectory.

Two neighbouring rows `a, b` become `(a + b) / sqrt 2` and `(a - b) / sqrt 2`: a rotation. So the transform is
orthonormal: its inverse is its transpose, white noise stays white, distances stay, and the log of the volume
does not change at all: `log p(x) = log p(coarse) + sum_l log p(detail_l | what is coarser)`, which is what
cascades need (hierarchical volume-preserving maps, arXiv 2501.06999).
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError

ROOT = math.sqrt(0.5)


class Scales(NamedTuple):
    """A trajectory of T rows by L scales of time."""

    coarse: Array  # [..., T / 2^L, D]: block means of 2^L rows, times 2^(L / 2)
    details: tuple[Array, ...]  # L of them, coarsest first: [..., T / 2^L, D] to [..., T / 2, D]


def _pairs(x: Array) -> tuple[Array, Array]:
    """Rows 0, 2, ... and 1, 3, ... of `x` `[..., T, D]`."""
    paired = x.reshape((*x.shape[:-2], x.shape[-2] // 2, 2, x.shape[-1]))
    return paired[..., 0, :], paired[..., 1, :]


def finer(coarser: Array, detail: Array) -> Array:
    """`[..., 2 T, D]` of rows and their details `[..., T, D]`: one step of `synthesis`."""
    both = jnp.stack([coarser + detail, coarser - detail], axis=-2) * ROOT
    return both.reshape((*coarser.shape[:-2], 2 * coarser.shape[-2], coarser.shape[-1]))


def analysis(x: Array, levels: int) -> Scales:
    """The scales of trajectories `[..., T, D]`; `synthesis` is the inverse.

    Raises:
        UserError: unless T divides by `2^levels`.
    """
    check_length(x.shape[-2], levels)
    details = []
    for _ in range(levels):
        first, second = _pairs(x)
        x, detail = (first + second) * ROOT, (first - second) * ROOT
        details.append(detail)
    return Scales(x, tuple(reversed(details)))


def synthesis(scales: Scales) -> Array:
    """The trajectories `[..., T, D]` of their scales."""
    x = scales.coarse
    for detail in scales.details:
        x = finer(x, detail)
    return x


def check_length(length: int, levels: int) -> None:
    """Raises `UserError` unless trajectories of `length` rows have that many scales."""
    if levels < 0 or length % 2**levels or not length:
        raise UserError(
            f"trajectories of {length} rows have no {levels} scales of time: give a length that divides by "
            f"2^levels = {2 ** max(levels, 0)}"
        )
