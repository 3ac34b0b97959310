"""Guidance to what is executed already: real-time chunking (Black et al. 2025, arXiv 2506.07339)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.types import Denoiser, bind, expand


def overlap_weights(length: int, frozen: int, overlap: int) -> np.ndarray:
    """`[T]`, how much each step of a new chunk is bound to the last one (arXiv 2506.07339, equation 5).

    1 on the first `frozen` steps, which will have been executed; from there to `overlap`
    `c (e^c - 1) / (e - 1)` with `c = (overlap - i) / (overlap - frozen + 1)`; 0 on what is new. An `overlap`
    below `frozen` cuts it there: 0 binds nothing, `frozen` is the hard mask.
    """
    step, frozen = np.arange(length), min(frozen, overlap)
    c = np.clip((overlap - step) / (overlap - frozen + 1), 0.0, 1.0)
    soft = c * np.expm1(c) / (math.e - 1)
    return np.where(step < frozen, 1.0, np.where(step < overlap, soft, 0.0)).astype(np.float32)


def _pseudo_inverse(
    denoiser: Denoiser,
    known: Array,
    weight: Array,
    beta: Array,
    x: Array,
    sigma: Array,
    *,
    sigma_data: float,
) -> Array:
    s = expand(sigma, x) / sigma_data
    denoised, transpose_j = jax.vjp(lambda x: denoiser(x, sigma), x)
    gain = jnp.minimum(beta * s, 1 + jnp.square(s))
    return denoised + gain * transpose_j(weight * (known - denoised))[0]


def pseudo_inverse(
    denoiser: Denoiser,
    known: Array,
    weight: Array,
    *,
    beta: Array | float = 5.0,
    sigma_data: float = 1.0,
) -> Partial:
    """Denoiser of what is bound to `known` where `weight` is above 0 (arXiv 2506.07339, equations 2 to 4).

    `D + min(beta s, 1 + s^2) J^T W (known - D)` with `s = sigma / sigma_data` and `J = dD/dx`: in the time of
    a flow, `tau = 1 / (1 + s)`, the paper's velocity with its clip at `beta`, for any formulation. It takes
    the clean entries, given `x`, for independent ones of variance `r^2`, as pseudo-inverse guidance does
    (PiGDM, Song et al. 2023): of independent Gaussians of std `sigma_data` it is, unclipped,
    `inpaint` where `weight` is 1. The clip lets go below a level of about `sigma_data / beta`. Of an AR(1) of
    correlation .9, half of it bound, ten steps keep that half to .1 of a std (unclipped exactly), and the
    rest follows it by half of what the conditional mean would: `condition` is exact there, at more calls.

    Args:
        known: of the shape of `x`; what has no weight says nothing.
        weight: broadcasts to `x`; see `overlap_weights`.
        beta: `[]`, the most guidance: 5 in the paper.
        sigma_data: standard deviation of the normalised data.
    """
    return bind(
        _pseudo_inverse,
        denoiser,
        jnp.asarray(known),
        jnp.asarray(weight),
        jnp.asarray(beta, jnp.float32),
        sigma_data=sigma_data,
    )
