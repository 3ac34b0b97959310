"""From a network to a denoiser, and from a denoiser to its score."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import Bound, Denoiser, Params, bind, expand

SIGMA_FLOOR = 1e-5  # keeps ln(sigma) finite for entries that are already clean


class Preconditioning(NamedTuple):
    """How a network `F` makes a denoiser: `D = c_skip x + c_out F(c_in x, c_noise)`.

    `c_out` is 0 and `c_skip` 1 at level 0, so that clean entries stay as they are.
    """

    scales: Callable[[Array], tuple[Array, Array, Array]]  # level -> (c_in, c_skip, c_out), of its shape
    condition: Callable[[Array], Array]  # level -> c_noise, of order 1, finite at level 0


def network_levels(sigma: Array, x: Array) -> Array:
    """The levels as a network takes them for `x` `[B, T, D]`: `[B]`, `[B, T]` or `[B, T, D]`."""
    sigma = jnp.asarray(sigma, x.dtype)
    return jnp.broadcast_to(sigma, x.shape[: max(sigma.ndim, 1)])


def _preconditioned(
    params: Params, x: Array, sigma: Array, *, apply: Callable[..., Array], preconditioning: Preconditioning
) -> Array:
    c_in, c_skip, c_out = preconditioning.scales(expand(sigma, x))
    c_noise = preconditioning.condition(network_levels(sigma, x))
    return c_skip * x + c_out * apply(params, c_in * x, c_noise)


def preconditioned(apply: Callable[..., Array], params: Params, preconditioning: Preconditioning) -> Partial:
    """Denoiser of the network `apply(params, x [B, T, D], c_noise)`; its leaves are `params`."""
    return bind(_preconditioned, params, apply=apply, preconditioning=preconditioning)


def _edm_scales(s: Array, *, sigma_data: float) -> tuple[Array, Array, Array]:
    variance = jnp.square(s) + sigma_data**2
    return 1 / jnp.sqrt(variance), sigma_data**2 / variance, s * sigma_data / jnp.sqrt(variance)


def log_level(sigma: Array) -> Array:
    """EDM's `c_noise = ln(sigma) / 4`, finite at 0."""
    return jnp.log(jnp.maximum(sigma, SIGMA_FLOOR)) / 4


def edm_preconditioning(sigma_data: float = 1.0) -> Preconditioning:
    """That of EDM (arXiv 2206.00364, table 1) for data of the standard deviation `sigma_data`."""
    return Preconditioning(Bound(_edm_scales, (("sigma_data", sigma_data),)), log_level)


def edm(apply: Callable[..., Array], params: Params, *, sigma_data: float = 1.0) -> Partial:
    """Denoiser of a network with the preconditioning of EDM (arXiv 2206.00364, table 1).

    `apply(params, x [B, T, D], c_noise)` predicts `F`; `D = c_skip x + c_out F(c_in x, ln(sigma) / 4)`.
    `sigma_data` is the standard deviation of the (normalised) data. The result is a `Denoiser` for
    `x` `[B, T, D]` whose leaves are `params`.
    """
    return preconditioned(apply, params, edm_preconditioning(sigma_data))


def score(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    """`grad_x log p(x; sigma) = (D(x, sigma) - x) / sigma^2` (Tweedie), of the shape of `x`; sigma > 0."""
    return (denoiser(x, sigma) - x) / jnp.square(expand(sigma, x))
