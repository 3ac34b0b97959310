"""Entries that are known: replaced, shown to the network, or conditioned on."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.guidance.solver import solve
from jdp.types import Denoiser, bind, expand


def _inpaint(denoiser: Denoiser, known: Array, mask: Array, x: Array, sigma: Array) -> Array:
    return jnp.where(mask, known, denoiser(x, sigma))


def inpaint(denoiser: Denoiser, known: Array, mask: Array) -> Partial:
    """Holds the entries where `mask` at `known` (both of the shape of `x`).

    Their denoised value is `known`, so any sampler keeps them at `known + sigma * eps` on the way
    and ends at `known`: replacement conditioning (arXiv 2205.09991), approximate for the rest.
    """
    return bind(_inpaint, denoiser, jnp.asarray(known), jnp.asarray(mask))


def _pulled(denoiser: Denoiser, target: Array, share: Array, x: Array, sigma: Array) -> Array:
    denoised = denoiser(x, sigma)
    return denoised + share * (target - denoised)


def pulled(denoiser: Denoiser, target: Array, share: Array) -> Partial:
    """`D + share (target - D)`, entry by entry: the denoised value moved towards `target`, of its shape.

    At a `share` of 1 it is `inpaint`, at 0 nothing.
    """
    return bind(_pulled, denoiser, target, share)


def _hold(denoiser: Denoiser, known: Array, mask: Array, level: Array, x: Array, sigma: Array) -> Array:
    # Whole steps that are held beside a level per step keep a level per step.
    steps = sigma.ndim == x.ndim - 1 > 1 and mask.shape[-1:] == (1,) and level.ndim < x.ndim
    shape = (*x.shape[:-1], 1) if steps else x.shape
    shown = jnp.broadcast_to(expand(level, x), shape)
    levels = jnp.where(jnp.broadcast_to(mask, shape), shown, jnp.broadcast_to(expand(sigma, x), shape))
    known, mask = jnp.broadcast_to(known, x.shape), jnp.broadcast_to(mask, x.shape)
    denoised = denoiser(jnp.where(mask, known, x), levels[..., 0] if steps else levels)
    return jnp.where(mask, known, denoised)


def hold(denoiser: Denoiser, known: Array, mask: Array, level: Array | float = 0.0) -> Partial:
    """Shows the denoiser the entries where `mask` as `known`, at the noise level `level`.

    For denoisers that know a level per entry. At level 0 the held entries are a clean condition, and
    what a sampler makes of the others is exact: a draw of the conditional `p(others | known)`. At
    `sigma_max`, with `sigma_max` times noise as `known`, the held entries say nothing: a draw of
    the others' marginal. (Unified World Models, arXiv 2504.02792; `inpaint` is for denoisers that
    know one level for all entries, and is approximate.)

    `known` and `mask` broadcast to `x`, `level` is `[]` or a prefix of its shape. The denoiser is shown a
    level per entry, `[B, T, D]`; a level per step, `[B, T]`, where `sigma` is that and the mask of whole
    steps, `[.., T, 1]`. The denoised value of the held entries is `known`, so any sampler ends at `known`
    there. Holds of different entries nest.
    """
    return bind(_hold, denoiser, jnp.asarray(known), jnp.asarray(mask), jnp.asarray(level, jnp.float32))


def _conditioned(
    denoiser: Denoiser,
    base: Denoiser | None,
    known: Array,
    mask: Array,
    variance: Array | None,
    x: Array,
    sigma: Array,
    *,
    solver_steps: int,
    floor: float,
    sigma_data: float,
) -> Array:
    s2 = jnp.broadcast_to(jnp.square(expand(sigma, x)), x.shape)
    r2 = s2 * sigma_data**2 / (s2 + sigma_data**2)

    def denoise(x: Array) -> Array:
        return (denoiser if base is None else base)(x, sigma)

    denoised, transpose_j = jax.vjp(denoise, x)
    _, push = jax.linearize(denoise, x)
    denoised = denoised if base is None else denoiser(x, sigma)

    def covariance(v: Array) -> Array:  # of the known entries, given the noisy x: J diag(sigma^2) among them
        return jnp.where(mask, push(s2 * v) if variance is None else push(s2 * v) + variance * v, 0.0)

    miss = jnp.where(mask, denoised - known, 0.0)
    least = floor * r2 if variance is None else floor * r2 + variance
    v = solve(covariance, least, miss, solver_steps)
    sure = mask if variance is None else mask & (variance == 0)
    return jnp.where(sure, known, denoised - s2 * transpose_j(v)[0])


def condition(
    denoiser: Denoiser,
    known: Array,
    mask: Array,
    *,
    base: Denoiser | None = None,
    variance: Array | None = None,
    solver_steps: int = 3,
    floor: float = 0.1,
    sigma_data: float = 1.0,
) -> Partial:
    """Denoiser of the rest given that the entries in `mask` ARE `known` (both of the shape of `x`).

    `inpaint` shows the network the known entries under noise, and the rest follows them only where noise
    is low; a deterministic sampler has then already decided, and a window that begins at a given state
    does not go on from it. Here the rest is moved by the gradient of the likelihood of `known` under the
    posterior of those entries, a Gaussian around their denoised value (as in `policy_guided`; Boys et
    al. 2023, arXiv 2310.06721): `D - sigma^2 J^T C^-1 (D - known)` with `C = sigma^2 J` among them.

    Args:
        base: of a guided `denoiser` the one without guidance, whose Jacobian `J` is then: guidance is
            an approximation, and its derivative a worse one. None: the denoiser's own.
        variance: broadcasts to `x`: of the noise that `known` was seen through, 0 where it is sure. Entries
            in `mask` are then drawn too, from their posterior. None: all is sure.
        solver_steps: conjugate-gradient steps for `C^-1`, of one jvp each; for a Gaussian the result is
            exact with as many steps as `C` has distinct eigenvalues.
        floor: the least variance believed, as a share of that of independent entries: the Jacobian of an
            imperfect network says too little, or less than nothing.
        sigma_data: standard deviation of the normalised data.
    """
    return bind(
        _conditioned,
        denoiser,
        base,
        jnp.asarray(known),
        jnp.asarray(mask),
        None if variance is None else jnp.asarray(variance),
        solver_steps=solver_steps,
        floor=floor,
        sigma_data=sigma_data,
    )
