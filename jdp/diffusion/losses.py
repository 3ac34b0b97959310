"""Training losses: `(key, apply, params, x0, ...) -> (scalar, metrics)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.denoiser import Preconditioning, edm_preconditioning, preconditioned
from jdp.types import Denoiser, Metrics, Params, expand, named_keys

Beside = Callable[[Array, Array], Array]
# beside(denoised, x0) -> an error of their shape; hashable


def prediction_error(
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    sigma: Array,
    noise: Array,
    preconditioning: Preconditioning,
    *,
    weight: Array | None = None,
    judged: Callable[[Array], tuple[Array, Array, Array]] | None = None,
    beside: Beside | None = None,
) -> tuple[Array, Metrics]:
    """Mean squared error of the network's own output at given levels: `mean w (D(x) - x0)^2 / c_out^2`.

    `x = x0 + sigma n` with the `noise` n, of the shape of `x0`. `D` is affine in the network's output, with
    the slope `c_out`, so this is the error of whatever it predicts: `eps`, `x0`, `v`, a velocity, or EDM's
    `F`. `x0` is `[B, ...]`; `sigma` and `weight` are prefixes of it. Entries at level 0 are known: they
    contribute nothing. The mean is over all entries, so the loss of a batch is the mean of those of its
    equal parts.

    Args:
        judged: scales of another quantity whose error is taken, in the place of the network's output.
        beside: an error of the denoised that is added, for instance that of the path it leads along
            (`jdp.diffusion.paths`).
    """
    s = expand(sigma, x0)
    x = x0 + s * noise
    denoised = preconditioned(apply, params, preconditioning)(x, sigma)
    c_out = (judged or preconditioning.scales)(jnp.where(s > 0, s, 1.0))[2]
    error = jnp.where(s > 0, 1 / jnp.square(c_out), 0.0) * jnp.square(denoised - x0)
    error = error if beside is None else error + beside(denoised, x0)
    loss = jnp.mean(error if weight is None else expand(weight, x0) * error)
    return loss, {"loss": loss}


def prediction_at(
    key: Array,
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    sigma: Array,
    preconditioning: Preconditioning,
    *,
    weight: Array | None = None,
) -> tuple[Array, Metrics]:
    """`prediction_error` with noise of `key`, which is consumed."""
    noise = jax.random.normal(key, x0.shape, x0.dtype)
    return prediction_error(apply, params, x0, sigma, noise, preconditioning, weight=weight)


def denoising_at(
    key: Array,
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    sigma: Array,
    *,
    weight: Array | None = None,
    sigma_data: float = 1.0,
) -> tuple[Array, Metrics]:
    """EDM's loss (arXiv 2206.00364, table 1) at given levels: `mean lambda(sigma) (D(x0 + sigma n) - x0)^2`.

    `lambda = (sigma^2 + sd^2) / (sigma sd)^2` is its `1 / c_out^2`; all else as in `prediction_at`.
    """
    return prediction_at(key, apply, params, x0, sigma, edm_preconditioning(sigma_data), weight=weight)


Shape = int | tuple[int, ...]  # a number of rows, or a prefix of the shape of x0


def as_shape(shape: Shape) -> tuple[int, ...]:
    """`(B,)` for `B`."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def log_normal_levels(key: Array, shape: Shape, dtype: Any, *, p_mean: float, p_std: float) -> Array:
    """Levels of `shape`, B or `(B,)`, `(B, T)`, ...: `ln sigma ~ N(p_mean, p_std^2)`; the key is consumed."""
    return jnp.exp(p_mean + p_std * jax.random.normal(key, as_shape(shape), dtype))


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
    sigma = log_normal_levels(keys["level"], x0.shape[0], x0.dtype, p_mean=p_mean, p_std=p_std)
    return denoising_at(keys["noise"], apply, params, x0, sigma, sigma_data=sigma_data)


def of_denoiser(
    key: Array, denoiser: Denoiser, x0: Array, *, p_mean: float = -1.2, p_std: float = 1.2
) -> Array:
    """`[B]`, EDM's loss of each of `x0` `[B, ...]` under a denoiser, with data of standard deviation 1.

    With one key all denoisers get the same noise, so that they can be compared; the key is consumed.
    """
    keys = named_keys(key, "level", "noise")
    sigma = log_normal_levels(keys["level"], x0.shape[0], x0.dtype, p_mean=p_mean, p_std=p_std)
    s = expand(sigma, x0)
    x = x0 + s * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
    error = (1 + 1 / jnp.square(s)) * jnp.square(denoiser(x, sigma) - x0)
    return jnp.mean(error, axis=tuple(range(1, x0.ndim)))
