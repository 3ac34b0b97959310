"""Composition of trained denoisers: convex combinations, products and negation (GPC, arXiv 2510.01068)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.errors import UserError
from jdp.types import Denoiser, bind, expand


def _composed(
    denoisers: tuple[Denoiser, ...], weights: Array, stds: Array | None, x: Array, sigma: Array
) -> Array:
    total, over = jnp.zeros_like(x), jnp.zeros((), x.dtype)
    s2 = jnp.square(expand(sigma, x))
    for k, denoiser in enumerate(denoisers):
        weight = expand(weights[k], x)
        over = over + weight
        sure = weight if stds is None else weight * (1 + s2 / jnp.square(stds[k]))
        total = total + sure * denoiser(x, sigma)
    total = total + (1 - over) * x
    if stds is None:
        return total
    precision = sum(expand(weights[k], x) / jnp.square(stds[k]) for k in range(len(denoisers)))
    return total / (1 + s2 * precision)


def compose(
    denoisers: Sequence[Denoiser],
    weights: Array | Sequence[float],
    stds: Array | Sequence[float] | None = None,
) -> Partial:
    """Denoiser whose score is `sum_k w_k` times that of each: `x + sum_k w_k (D_k - x)` (arXiv 2510.01068).

    Every denoiser is `E[x0 | x]` in the same coordinates, whatever its network predicts, so that scores of
    different formulations add up: `(D - x) / sigma^2`. Weights that sum to one are GPC's convex
    combination, `sum_k w_k D_k`; (1, 0) is the first denoiser to the last bit. Any weights make
    products and negations (`product`, `without`). Weights are leaves: other ones compile nothing.

    The sum of the scores of noised densities is the score of no noised density: of `prod_k p_k^w_k` it is
    exact for Gaussians of one variance whose weights sum to one, and leaves products of others too wide or
    too narrow (Du et al. 2023, arXiv 2302.11552). With `stds`, our addition, each denoiser's clean point is
    taken for Gaussian with the variance that such data leave, `sigma^2 v_k / (sigma^2 + v_k)` with `v_k =
    stds_k^2`, and these are multiplied: exact for isotropic Gaussians of those `stds`.

    Args:
        denoisers: K of them; each is called once.
        weights: `[K]`, or `[K, B]` for a weight a row.
        stds: `[K]`, standard deviations of what the denoisers draw; None: all alike.

    Raises:
        UserError: unless there is a weight, and where given a std, for each denoiser.
    """
    weights = jnp.asarray(weights, jnp.float32)
    widths = None if stds is None else jnp.asarray(stds, jnp.float32)
    for name, given in (("weights", weights), ("stds", widths)):
        if given is not None and (given.ndim == 0 or given.shape[0] != len(denoisers)):
            raise UserError(
                f"{name} are of shape {given.shape}, of {len(denoisers)} denoisers: give one each"
            )
    return bind(_composed, tuple(denoisers), weights, widths)


def product(
    denoisers: Sequence[Denoiser],
    prior: Denoiser | None = None,
    stds: Array | Sequence[float] | None = None,
) -> Partial:
    """Denoiser of `prod_k p_k / p_0^(K - 1)`: all that is asked for, and the prior counted once.

    So it joins conditions that are independent given `x0`: `p(x0) prod_k p(c_k | x0)`, where each `p_k` is
    `p(x0 | c_k)` (arXiv 2206.01714). Without a `prior` it is the bare product of experts `prod_k p_k`. How
    exact: `compose`, whose last entry is then the prior.

    Args:
        stds: `[K]`, or with a prior `[K + 1]`; see `compose`.
    """
    ones = [1.0] * len(denoisers)
    if prior is None:
        return compose(denoisers, ones, stds)
    return compose((*denoisers, prior), [*ones, 1.0 - len(denoisers)], stds)


def without(
    denoiser: Denoiser,
    unwanted: Denoiser,
    prior: Denoiser,
    weight: Array | float = 1.0,
    stds: Array | Sequence[float] | None = None,
) -> Partial:
    """Denoiser of `p (p_0 / p_1)^weight`: away from what is `unwanted` (arXiv 2206.01714).

    That is away from what `unwanted`, of `p_1`, draws more often than the `prior`, of `p_0`.

    Args:
        denoiser: of `p`; the prior itself, where all but the unwanted is welcome.
        weight: `[]` or `[B]`; 0 is `denoiser`.
        stds: `[3]`, of the three in this order; see `compose`. Where `unwanted` is narrower than the others
            the quotient may be no density: keep the weight below what its precision allows.
    """
    away = jnp.asarray(weight, jnp.float32)
    return compose((denoiser, prior, unwanted), jnp.stack([jnp.ones_like(away), away, -away]), stds)
