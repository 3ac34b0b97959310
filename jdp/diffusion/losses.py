"""Training losses: `(key, apply, params, x0, ...) -> (scalar, metrics)`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.denoiser import edm
from jdp.types import Metrics, Params, named_keys


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

    `ln sigma ~ N(p_mean, p_std^2)`, one level a trajectory; `lambda = (sigma^2 + sd^2) / (sigma sd)^2`;
    the mean is over batch, time and channels. `x0` is `[B, T, D]`; the key is consumed.
    """
    keys = named_keys(key, "level", "noise")
    sigma = jnp.exp(p_mean + p_std * jax.random.normal(keys["level"], x0.shape[:1], x0.dtype))
    s = sigma[:, None, None]
    x = x0 + s * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
    error = jnp.square(edm(apply, params, sigma_data=sigma_data)(x, sigma) - x0)
    weight = (jnp.square(sigma) + sigma_data**2) / jnp.square(sigma * sigma_data)
    loss = jnp.mean(weight * error.mean(axis=(1, 2)))
    return loss, {"loss": loss}
