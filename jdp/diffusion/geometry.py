"""What a denoiser knows of the space around its data: curl, gauge freedom, dimension (arXiv 2402.03845).

An exact denoiser is a posterior mean, and its Jacobian the posterior's covariance, `dD / dx = Cov[x0 | x] /
sigma^2`: symmetric, for the score is a gradient; and with an eigenvalue `v / (v + sigma^2)` in a direction in
which the data near x have the variance v, 1 along the data and 0 across. A learned one need not be symmetric.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.denoiser import network_levels
from jdp.diffusion.likelihood import DIRECTIONS, directions, probing, value_and_trace
from jdp.types import Denoiser, bind, expand


def _at(denoiser: Denoiser, x: Array, sigma: Array) -> tuple[Callable[[Array], Array], Array]:
    """The denoiser as a function of rows `[B, ...]` alone, and its levels `[B]`, of `[]` or `[B]`."""
    levels = network_levels(sigma, x)
    return lambda x: denoiser(x, levels), levels


def _along(function: Callable[[Array], Array], ways: Array) -> Array:
    if len(ways) <= DIRECTIONS:
        return jax.vmap(function)(ways)
    return jax.lax.map(function, ways, batch_size=DIRECTIONS)


def rows_jacobian(function: Callable[[Array], Array], x: Array) -> Array:
    """`[B, N, N]`, entry `[b, i, j]` is `df_i / dx_j` of a function of rows `[B, ...]` of N entries.

    A row's value knows only its own row. It takes N derivatives forward, of all rows at once.
    """
    _, push = jax.linearize(function, x)
    columns = _along(lambda v: push(jnp.broadcast_to(v, x.shape)), directions(x))
    return jnp.moveaxis(columns.reshape(len(columns), len(x), -1), 0, -1)


def jacobian(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    """`[B, N, N]`, `dD / dx` of rows `x` `[B, ...]` with N entries, at levels `[]` or `[B]`; sigma > 0."""
    return rows_jacobian(_at(denoiser, x, sigma)[0], x)


def spectrum(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    """`[B, N]`, eigenvalues of the symmetric part of `dD / dx`, the largest first.

    Those above 1/2 are of directions in which the data near a row vary by more than sigma: their number is
    the rank of the data at that scale.
    """
    found = jacobian(denoiser, x, sigma)
    return jnp.linalg.eigvalsh(0.5 * (found + jnp.swapaxes(found, 1, 2)))[:, ::-1]


def dimension(
    denoiser: Denoiser, x: Array, sigma: Array, *, key: Array | None = None, probes: int = 8
) -> Array:
    """`[B]`, the dimension of the data near rows `x` at the scale sigma: `tr dD / dx`.

    Of a Gaussian it is `sum_i v_i / (v_i + sigma^2)` over the variances of its principal directions; of a
    smooth manifold, for sigma well below its radii of curvature, its dimension (FLIPD, arXiv 2406.03537).
    `N - tr dD / dx` is also `-d ln p / d ln sigma` along the probability flow: likelihood is an integral of
    missing dimensions.

    Args:
        x: `[B, ...]`, data with noise of the level sigma.
        sigma: `[]` or `[B]`, above 0.
        key: of Hutchinson's estimate with `probes` random signs a row, without bias, consumed; None: the
            exact trace, as many derivatives as entries.
    """
    return value_and_trace(_at(denoiser, x, sigma)[0], x, probing(key, probes, x))[1]


def asymmetry(
    denoiser: Denoiser, x: Array, sigma: Array, *, key: Array | None = None, probes: int = 8
) -> Array:
    """`[B]`, the antisymmetric share of `J = dD / dx`: `|J - J'| / 2 |J|`, Frobenius norms.

    0 where the score is a gradient, 1 for a pure rotation. Arguments are those of `dimension`; with a key
    both norms are estimated, each by one derivative forward and one backward for each probe.
    """
    function, _ = _at(denoiser, x, sigma)
    _, push = jax.linearize(function, x)
    pull, axes = jax.linear_transpose(push, x), tuple(range(1, x.ndim))

    def parts(direction: Array) -> Array:
        v = jnp.broadcast_to(direction, x.shape)
        ahead, back = push(v), pull(v)[0]
        return jnp.stack([jnp.sum(jnp.square(w), axis=axes) for w in (ahead - back, ahead + back)])

    signs = probing(key, probes, x)
    odd, even = jnp.sum(_along(parts, directions(x) if signs is None else signs), axis=0)
    return jnp.sqrt(odd / (odd + even))  # the two parts are orthogonal


def gauge_residual(
    denoiser: Denoiser,
    reference: Denoiser,
    x: Array,
    sigma: Array,
    *,
    key: Array | None = None,
    probes: int = 8,
) -> Array:
    """`[B]`, `tr d(D - D*) / dx + score* . (D - D*)`: what the departure from a reference costs the density.

    Where it is 0 the flow of `denoiser` carries the densities of the `reference` D* as its own does, though
    the two fields differ: the gauge freedom of a score (arXiv 2402.03845, its gauge condition times
    sigma^2). Else it says at which rate, in nats for each e-fold of the level, the log density of what is
    sampled leaves the reference's. Its mean over the reference's own density is 0: only its spread tells.

    Arguments are those of `dimension`.
    """
    mine, _ = _at(denoiser, x, sigma)
    theirs, levels = _at(reference, x, sigma)
    gap, trace = value_and_trace(lambda x: mine(x) - theirs(x), x, probing(key, probes, x))
    score = (theirs(x) - x) / jnp.square(expand(levels, x))
    return trace + jnp.sum(score * gap, axis=tuple(range(1, x.ndim)))


def _of_density(log_density: Callable[[Array, Array], Array], x: Array, sigma: Array) -> Array:
    levels = network_levels(sigma, x)
    slope = jax.grad(lambda x: jnp.sum(log_density(x, levels)))(x)
    return x + jnp.square(expand(levels, x)) * slope


def of_density(log_density: Callable[[Array, Array], Array]) -> Partial:
    """The denoiser of `log_density(x [B, ...], sigma [B]) -> [B]`, up to a constant; its score is a gradient.

    Tweedie's formula, `D = x + sigma^2 grad log p(x; sigma)`. The density is a pytree (`jdp.types.bind`).
    Of networks that are gradients see `jdp.networks.conservative`.
    """
    return bind(_of_density, log_density)


def contraction(sampler: Callable[..., Array], denoiser: Denoiser, x: Array, sigmas: Array) -> Array:
    """`[B, N]`, singular values of the flow map from `sigmas[0]` to `sigmas[-1]`, the largest first.

    Across the data the flow shrinks what it moves to about `sigmas[-1] / sigmas[0]`; along them it stops
    shrinking once the level is below the extent of the data (arXiv 2402.03845, section 4). Of a Gaussian
    they are `sqrt((v + sigmas[-1]^2) / (v + sigmas[0]^2))`.

    Args:
        sampler: a deterministic one of `jdp.diffusion.samplers`.
        x: `[B, ...]`, noise of the level `sigmas[0]`.
        sigmas: `[n + 1]`, falling, the last one above 0: else the last step tells nothing but 0.
    """
    found = rows_jacobian(lambda x: sampler(denoiser, x, sigmas), x)
    return jnp.linalg.svd(found, compute_uv=False)


def largest_gap(values: Array) -> Array:
    """`[B]` int32, how many of the falling `values` `[B, N]` stand before their largest ratio of neighbours.

    Of `contraction` that is the dimension of the data, where there is such a gap. It never is 0, nor N.
    """
    return jnp.argmax(values[:, :-1] / jnp.maximum(values[:, 1:], 1e-12), axis=1).astype(jnp.int32) + 1
