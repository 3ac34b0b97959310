"""Training losses: `(key, apply, params, x0, ...) -> (scalar, metrics)`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.denoiser import edm
from jdp.types import Metrics, Params, expand, named_keys


def denoising_at(
    key: Array,
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    sigma: Array,
    *,
    sigma_data: float = 1.0,
) -> tuple[Array, Metrics]:
    """EDM's loss (arXiv 2206.00364, table 1) at given levels: `mean lambda(sigma) (D(x0 + sigma n) - x0)^2`.

    `x0` is `[B, ...]`, the shape of `sigma` a prefix of it; `lambda = (sigma^2 + sd^2) / (sigma sd)^2`.
    Entries at level 0 are known: they contribute nothing. The mean is over all entries; the key is
    consumed.
    """
    s = expand(sigma, x0)
    x = x0 + s * jax.random.normal(key, x0.shape, x0.dtype)
    error = jnp.square(edm(apply, params, sigma_data=sigma_data)(x, sigma) - x0)
    noisy = jnp.where(s > 0, s, 1.0)
    weight = jnp.where(s > 0, (jnp.square(noisy) + sigma_data**2) / jnp.square(noisy * sigma_data), 0.0)
    loss = jnp.mean(weight * error)
    return loss, {"loss": loss}


def denoising(
    key: Array,
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    *,
    p_mean: float = -1.2,
    p_std: float = 1.2,
    sigma_data: float = 1.0,
) -> tuple[Array, Metrics]:
    """EDM's loss (arXiv 2206.00364, table 1): `E[lambda(sigma) (D(x0 + sigma n; sigma) - x0)^2]`.

    `ln sigma ~ N(p_mean, p_std^2)`, one level a row (trajectory); `lambda = (sigma^2 + sd^2) / (sigma sd)^2`;
    the mean is over all entries. `x0` is `[B, ...]`; the key is consumed.
    """
    keys = named_keys(key, "level", "noise")
    sigma = jnp.exp(p_mean + p_std * jax.random.normal(keys["level"], x0.shape[:1], x0.dtype))
    return denoising_at(keys["noise"], apply, params, x0, sigma, sigma_data=sigma_data)
