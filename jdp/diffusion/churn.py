"""Samplers that add noise back before each step (EDM, arXiv 2206.00364, algorithm 2)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.chains import scan, split
from jdp.diffusion.transitions import euler_step, heun_step
from jdp.types import Denoiser, expand


class Churn(NamedTuple):
    """Noise added back before each step (arXiv 2206.00364, algorithm 2)."""

    amount: float = 80.0  # S_churn
    sigma_min: float = 0.05  # S_tmin
    sigma_max: float = 50.0  # S_tmax
    noise: float = 1.003  # S_noise


def churn_step(
    key: Array, x: Array, sigma: Array, n: int, churn: Churn, sigma_next: Array | None = None
) -> tuple[Array, Array]:
    """`(x_hat, sigma_hat)`: the state raised to a higher noise level; the key is consumed.

    `sigma` is a prefix of the shape of `x`. Entries whose level is also `sigma_next` (None: any other) are at
    rest, and are not raised.
    """
    gamma = min(churn.amount / n, 2**0.5 - 1)
    active = (sigma >= churn.sigma_min) & (sigma <= churn.sigma_max)
    sigma_hat = sigma * (1 + jnp.where(active, gamma, 0.0))
    extra = jnp.sqrt(jnp.maximum(jnp.square(sigma_hat) - jnp.square(sigma), 0.0))
    if sigma_next is not None:
        resting = sigma == sigma_next
        sigma_hat, extra = jnp.where(resting, sigma, sigma_hat), jnp.where(resting, 0.0, extra)
    return x + expand(extra, x) * churn.noise * jax.random.normal(key, x.shape, x.dtype), sigma_hat


def _churned(stepper: Callable, denoiser, x, sigmas, *, key, churn: Churn, trace: bool) -> Array:
    n = sigmas.shape[0] - 1

    def step(state, item):
        # The whole step, predictor included, starts from x_hat: it carries the noise of sigma_hat.
        k, sigma, sigma_next = item
        x_hat, sigma_hat = churn_step(k, state[0], sigma, n, churn, sigma_next)
        return stepper(denoiser, x_hat, sigma_hat, sigma_next), None

    keys = split(key, sigmas)
    result = scan(step, x, None, (keys[:-1], sigmas[:-2], sigmas[1:-1]), trace)
    last, sigma_hat = churn_step(keys[-1], result[-1] if trace else result, sigmas[-2], n, churn, sigmas[-1])
    final = euler_step(denoiser, last, sigma_hat, sigmas[-1])
    return jnp.concatenate([result, final[None]]) if trace else final


def churned_heun(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    churn: Churn = Churn(),  # noqa: B008 (an immutable tuple)
    trace: bool = False,
) -> Array:
    """Heun with churn (arXiv 2206.00364, algorithm 2); the key is consumed."""
    return _churned(heun_step, denoiser, x, sigmas, key=key, churn=churn, trace=trace)


def churned_euler(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    churn: Churn = Churn(),  # noqa: B008 (an immutable tuple)
    trace: bool = False,
) -> Array:
    """Euler with churn; the key is consumed."""
    return _churned(euler_step, denoiser, x, sigmas, key=key, churn=churn, trace=trace)
