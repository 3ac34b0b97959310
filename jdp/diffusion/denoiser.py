"""From a network to a denoiser, and from a denoiser to its score."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import Denoiser, Params, bind, expand

SIGMA_FLOOR = 1e-5  # keeps ln(sigma) finite for entries that are already clean


def _edm(params: Params, x: Array, sigma: Array, *, apply: Callable[..., Array], sigma_data: float):
    s = expand(sigma, x)
    variance = jnp.square(s) + sigma_data**2
    c_skip = sigma_data**2 / variance
    c_out = s * sigma_data / jnp.sqrt(variance)
    c_in = 1 / jnp.sqrt(variance)
    # The network sees x as [B, T, D] and the level as [B], [B, T] or [B, T, D].
    shape = x.shape[:1] if sigma.ndim <= 1 else x.shape[: sigma.ndim]
    c_noise = jnp.log(jnp.maximum(jnp.broadcast_to(sigma, shape), SIGMA_FLOOR)) / 4
    return c_skip * x + c_out * apply(params, c_in * x, c_noise)


def edm(apply: Callable[..., Array], params: Params, *, sigma_data: float = 1.0) -> Partial:
    """Denoiser of a network with the preconditioning of EDM (arXiv 2206.00364, table 1).

    `apply(params, x [B, T, D], c_noise)` predicts `F`; `D = c_skip x + c_out F(c_in x, ln(sigma) / 4)`.
    `sigma_data` is the standard deviation of the (normalised) data. The result is a `Denoiser` for
    `x` `[B, T, D]` whose leaves are `params`.
    """
    return bind(_edm, params, apply=apply, sigma_data=sigma_data)


def score(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    """`grad_x log p(x; sigma) = (D(x, sigma) - x) / sigma^2` (Tweedie), of the shape of `x`; sigma > 0."""
    return (denoiser(x, sigma) - x) / jnp.square(expand(sigma, x))
