"""Guidance by a value or return: the prior tilted by `exp(scale V)` (Diffuser, arXiv 2205.09991)."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.guidance.policy import Covariance
from jdp.diffusion.guidance.solver import ascend
from jdp.types import Denoiser, bind, expand

Value = Callable[[Array, Array], Array]  # (x [B, ..., D], sigma [B]) -> [B], a pytree


def posterior(
    denoiser: Denoiser, x: Array, sigma: Array, covariance: Covariance, sigma_data: float
) -> tuple[Array, Callable[[Array], Array]]:
    """`(E[x0 | x], v -> C v)`, mean and covariance of the clean point given `x` `[B, ..., D]`.

    "isotropic" takes data for independent entries of standard deviation `sigma_data`; "jacobian" is
    `sigma^2 dD/dx`, by a pass backward through the denoiser for each product.
    """
    s2 = jnp.broadcast_to(jnp.square(expand(sigma, x)), x.shape)
    if covariance == "isotropic":
        return denoiser(x, sigma), lambda v: s2 * sigma_data**2 / (s2 + sigma_data**2) * v
    denoised, transpose_j = jax.vjp(lambda x: denoiser(x, sigma), x)
    return denoised, lambda v: s2 * transpose_j(v)[0]


def _noised(denoiser: Denoiser, value: Value, scale: Array, x: Array, sigma: Array) -> Array:
    levels = jnp.broadcast_to(expand(sigma, x), x.shape)
    # A row's level is its highest: clean entries are known, whatever the level of the others.
    rows = jnp.max(levels, axis=tuple(range(1, x.ndim)))
    slope = jax.grad(lambda x: jnp.sum(jnp.broadcast_to(scale, rows.shape) * value(x, rows)))(x)
    return denoiser(x, sigma) + jnp.square(levels) * slope


def _denoised(
    denoiser: Denoiser,
    value: Value,
    scale: Array,
    x: Array,
    sigma: Array,
    *,
    covariance: Covariance,
    steps: int,
    solver_steps: int,
    floor: float,
    sigma_data: float,
) -> Array:
    clean = jnp.zeros(x.shape[0], x.dtype)
    denoised, spread = posterior(denoiser, x, sigma, covariance, sigma_data)

    def slope(z: Array) -> Array:
        return jax.grad(lambda z: jnp.sum(jnp.broadcast_to(scale, clean.shape) * value(z, clean)))(z)

    # With z = D + C u the maximum is where u = scale grad V(z): clean entries, C = 0, cannot move.
    u = move = jnp.zeros_like(x)
    for _ in range(steps):
        if solver_steps == 0:
            u = slope(denoised + move)
            move = spread(u)
            continue
        g, curve = jax.linearize(slope, denoised + move)
        du, step = ascend(spread, curve, g - u, solver_steps, floor)
        u, move = u + du, move + step
    return denoised + move


def value_guided(
    denoiser: Denoiser,
    value: Value,
    scale: Array | float = 1.0,
    *,
    point: Literal["denoised", "noised"] = "denoised",
    covariance: Covariance = "isotropic",
    steps: int = 1,
    solver_steps: int = 1,
    floor: float = 0.5,
    sigma_data: float = 1.0,
) -> Partial:
    """Denoiser of `p(x0) exp(scale V(x0))`: classifier guidance by a value (arXiv 2205.09991, equation 3).

    Args:
        value: a pytree function `(x [B, ..., D], sigma [B]) -> [B]`, `sigma` the row's highest level.
        scale: `[]` or `[B]`; 0 leaves the denoiser as it is.
        point: "noised": `D + scale sigma^2 grad_x V(x, sigma)`, exact where `scale V(x, sigma)` is
            `log E[exp(scale J(x0)) | x]`. A regression of the return on noisy plans learns `E[J | x]`, which
            has the same slope only to first order in `scale`. "denoised": the maximum over `z` of
            `scale V(z, 0) - (z - D)^T C^-1 (z - D) / 2`: the mean of the clean plan given `x`, tilted, where
            that is Gaussian around the denoised `D` with covariance `C`, and `V` quadratic.
        covariance: "isotropic", `C = r^2 I` with `r^2 = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2)`: no
            gradient through the denoiser, exact for independent entries of standard deviation `sigma_data`.
            What hangs on the entries that the return names follows too little (a smooth plan is bent):
            where a linear return names one of two entries correlated by .8, they move by .88 and .33
            instead of 1 and .8. "jacobian", `C = sigma^2 (dD/dx)^T`: one backward pass of the denoiser for
            each solver step, exact for correlated Gaussians.
        steps: of Newton's method towards that maximum; one suffices for a quadratic.
        solver_steps: conjugate-gradient steps for each, of one Hessian-vector product; exact with as many as
            the return has distinct curvatures. 1 is steepest ascent with the step that a quadratic
            needs. 0 believes in no curvature, is cheapest, and overshoots where `scale C |V''| > 1`.
        floor: where the return is convex, a step is at most `1 / floor` times that without curvature.
        sigma_data: standard deviation of the normalised data.

    Entries at level 0 do not move. For held entries, hold outside: `hold(value_guided(d, ...), ...)`.
    """
    gain = jnp.asarray(scale, jnp.float32)
    if point == "noised":
        return bind(_noised, denoiser, value, gain)
    return bind(
        _denoised,
        denoiser,
        value,
        gain,
        covariance=covariance,
        steps=steps,
        solver_steps=solver_steps,
        floor=floor,
        sigma_data=sigma_data,
    )
