"""Exact denoisers of Gaussians, Gaussian mixtures and points: oracles for tests and notebooks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import bind, expand


def _gaussian(mean: Array, std: Array, x: Array, sigma: Array) -> Array:
    s2 = jnp.square(expand(sigma, x))
    v = jnp.broadcast_to(jnp.square(std), x.shape)
    return (v * x + s2 * jnp.broadcast_to(mean, x.shape)) / (v + s2)


def gaussian(mean: Array | float, std: Array | float) -> Partial:
    """Denoiser of independent `N(mean, std^2)`; `mean` and `std` broadcast to `x`."""
    return bind(_gaussian, jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def _gaussian_map(mean: Array, std: Array, x: Array, sigma: Array, sigma_next: Array) -> Array:
    v, m = (jnp.broadcast_to(a, x.shape) for a in (jnp.square(std), mean))
    before, after = v + jnp.square(expand(sigma, x)), v + jnp.square(expand(sigma_next, x))
    return m + (x - m) * jnp.sqrt(after / before)


def gaussian_map(mean: Array | float, std: Array | float) -> Partial:
    """The flow map `(x, sigma, sigma_next) -> x_next` of the ODE of `gaussian(mean, std)`; std > 0."""
    return bind(_gaussian_map, jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def _correlated(
    mean: Array, covariance: Array, values: Array, vectors: Array, x: Array, sigma: Array
) -> Array:
    if sigma.ndim > 1:
        return _correlated_levels(mean, covariance, x, sigma)
    # In the eigenbasis of the covariance each coordinate is a scalar Gaussian.
    s2 = jnp.square(sigma)[..., None]
    flat = x.reshape((*sigma.shape, -1))
    z = (flat - jnp.broadcast_to(mean, flat.shape)) @ vectors
    v = jnp.broadcast_to(values, z.shape)
    shrunk = z * (v / (v + s2))
    return (jnp.broadcast_to(mean, flat.shape) + shrunk @ vectors.T).reshape(x.shape)


def _correlated_levels(mean: Array, covariance: Array, x: Array, sigma: Array) -> Array:
    """`mean + C (C + diag(sigma^2))^-1 (x - mean)`, one system a row."""
    flat = x.reshape(x.shape[0], -1)
    s2 = jnp.square(jnp.broadcast_to(expand(sigma, x), x.shape).reshape(flat.shape))
    mean = jnp.broadcast_to(mean, flat.shape)
    # Scaled to a unit diagonal, for levels of 0 and of 80 may stand side by side.
    scale = jax.lax.rsqrt(jnp.broadcast_to(jnp.diag(covariance), flat.shape) + s2)
    total = covariance[None] + s2[:, :, None] * jnp.eye(flat.shape[1], dtype=x.dtype)[None]
    total = scale[:, :, None] * total * scale[:, None, :]
    solved = scale * jnp.linalg.solve(total, (scale * (flat - mean))[..., None])[..., 0]
    return jnp.where(s2 == 0, flat, mean + solved @ covariance).reshape(x.shape)


def correlated_gaussian(mean: Array, covariance: Array) -> Partial:
    """Denoiser of `N(mean [N], covariance [N, N])`, where `x` is `[B, ...]` with N entries a row.

    `sigma` is `[]` (for a single `x`), `[B]`, or any longer prefix of the shape of `x` up to a level per
    entry; entries at level 0 are known and stay, and among them the covariance must not be singular.
    """
    covariance = jnp.asarray(covariance, jnp.float32)
    values, vectors = jnp.linalg.eigh(covariance)
    return bind(_correlated, jnp.asarray(mean, jnp.float32).reshape(-1), covariance, values, vectors)


def _mixture_parts(
    weights: Array, means: Array, stds: Array, x: Array, sigma: Array
) -> tuple[Array, Array, Array]:
    """`(logits [..., K], gap [..., K, D], part [..., K, D])`: of components, gaps from their means, and which
    part of these is noise."""
    # x [..., D], means [K, D], stds [K]
    s = expand(sigma, x)[..., None, :]
    v = jnp.square(stds)[:, None]
    total = jnp.broadcast_to(v, (*x.shape[:-1], *v.shape)) + jnp.square(s)
    gap = x[..., None, :] - jnp.broadcast_to(means, (*x.shape[:-1], *means.shape))
    log_p = -0.5 * jnp.sum(jnp.square(gap) / total + jnp.log(total), axis=-1)
    return log_p + jnp.broadcast_to(jnp.log(weights), log_p.shape), gap, jnp.square(s) / total


def _mixture_logits(weights: Array, means: Array, stds: Array, x: Array, sigma: Array) -> Array:
    return _mixture_parts(weights, means, stds, x, sigma)[0]


def _mixture(weights: Array, means: Array, stds: Array, x: Array, sigma: Array) -> Array:
    logits, gap, part = _mixture_parts(weights, means, stds, x, sigma)
    responsibility = jax.nn.softmax(logits, axis=-1)
    posterior = x[..., None, :] - part * gap
    return jnp.sum(responsibility[..., None] * posterior, axis=-2)


def mixture(weights: Array, means: Array, stds: Array) -> Partial:
    """Denoiser of `sum_k weights[k] N(means[k], stds[k]^2 I)` over the last axis of `x`.

    `weights` `[K]` sum to one, `means` `[K, D]`, `stds` `[K]`; zero `stds` are points. The levels
    of one vector must be equal: `sigma.ndim < x.ndim`.
    """
    as_float = (jnp.asarray(a, jnp.float32) for a in (weights, means, stds))
    return bind(_mixture, *as_float)


def mixture_logits(weights: Array, means: Array, stds: Array) -> Partial:
    """`(x, sigma) -> [..., K]`, up to a constant `log p(k | x)` of which component a noised `x` came from.

    Arguments: of `mixture`. A perfect router (`jdp.diffusion.experts`).
    """
    as_float = (jnp.asarray(a, jnp.float32) for a in (weights, means, stds))
    return bind(_mixture_logits, *as_float)


def std_errors(
    sampler: Callable[..., Array], sigmas: Array, *, widest: float | None = None, samples: int = 4096
) -> dict[str, float]:
    """Relative error of the std that `sampler` gives exact Gaussians `N(0, s^2)`, by `s`.

    What few steps cost, for single channels (`s` of 1 and less) and for the `widest` direction of whole
    windows (`jdp.synthesis.window_spread`), which a first level that is too low narrows. The noise that the
    samples begin from is the same for every `s`, and its own departure from a unit std is divided out.
    """
    run, errors = jax.jit(sampler), {}
    x = sigmas[0] * jax.random.normal(jax.random.key(0), (samples, 1))
    for s in (*(() if widest is None else (widest,)), 1.0, 0.3, 0.1, 0.03):
        x0 = run(gaussian(0.0, s), x, sigmas, key=jax.random.key(1))
        errors[f"{s:.3g}"] = float(x0.std() / s / (x.std() / sigmas[0]) - 1)
    return errors
