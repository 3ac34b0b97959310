"""The ELBO of masked diffusion, and the masks that it is estimated with.

    log p(x) >= int_0^1 E_mask[ (1 / t) sum_{i masked} log p(x_i | shown) ] dt

(Sahoo et al. 2024, arXiv 2406.07524), with equality where all conditionals are those of one distribution. In
t it is a polynomial of degree L - 1: Gauss and Legendre's rule of N nodes is exact up to L = 2 N. With few
nodes and one mask at each it is the semi-deterministic Monte Carlo of GDPO (arXiv 2510.08554).
"""

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.diffusion.discrete import masking
from jdp.distributions import Categorical
from jdp.types import TokenDenoiser


class Masks(NamedTuple):
    """M masks for each of B rows: the ELBO is the sum of their log probabilities, so weighted."""

    hidden: Array  # [B, M, L] bool
    weight: Array  # [B, M]


def legendre(nodes: int) -> tuple[Array, Array]:
    """`([N], [N])`: nodes in (0, 1) and weights that sum to one."""
    at, weight = np.polynomial.legendre.leggauss(nodes)
    return jnp.asarray((at + 1) / 2, jnp.float32), jnp.asarray(weight / 2, jnp.float32)


def _flat(hidden: Array, weight: Array, antithetic: bool) -> Masks:
    """Pairs `[B, M, 2, L]` side by side, with half the weight each."""
    if not antithetic:
        return Masks(hidden, weight)
    rows, count, _, length = hidden.shape
    return Masks(hidden.reshape(rows, 2 * count, length), jnp.repeat(weight / 2, 2, axis=1))


def monte_carlo(key: Array, shape: tuple[int, ...], count: int) -> Masks:
    """Of tokens `[B, L]` masks at uniform levels: without bias, of unbounded variance; consumes the key."""
    level_key, mask_key = jax.random.split(key)
    level = 1 - jax.random.uniform(level_key, (shape[0], count))  # never 0
    return Masks(masking.independent(mask_key, level, shape[1]), 1 / (count * level))


def quadrature(key: Array, shape: tuple[int, ...], nodes: int, antithetic: bool = False) -> Masks:
    """Of tokens `[B, L]` one mask (or a pair) at every node of Gauss and Legendre; consumes the key."""
    at, weight = (jnp.broadcast_to(x[None], (shape[0], nodes)) for x in legendre(nodes))
    return _flat(masking.independent(key, at, shape[1], antithetic), weight / at, antithetic)


def counted(key: Array, shape: tuple[int, ...], count: int, antithetic: bool = False) -> Masks:
    """Of tokens `[B, L]` masks that hide 1 to L of them, stratified: weights stay below L; consumes the key.

    The integral over levels is done: a mask of n tokens counts `1 / n`, all n alike.
    """
    number_key, mask_key = jax.random.split(key)
    strata = jnp.arange(count, dtype=jnp.float32)[None]
    u = (jax.random.uniform(number_key, (shape[0], count)) + strata) / count
    number = jnp.minimum(1 + jnp.floor(u * shape[1]), shape[1])
    hidden = masking.counted(mask_key, number.astype(jnp.int32), shape[1], antithetic)
    return _flat(hidden, shape[1] / (number * count), antithetic)


def enumerated(shape: tuple[int, ...], nodes: int) -> Masks:
    """Of tokens `[B, L]` all `2^L` masks, by their probabilities at the nodes: for short sequences."""
    hidden = jnp.asarray(list(product((False, True), repeat=shape[1])))
    number = jnp.sum(hidden, axis=-1, dtype=jnp.float32)[:, None]
    at, weight = (x[None] for x in legendre(nodes))
    each = jnp.sum(weight / at * at**number * (1 - at) ** (shape[1] - number), axis=-1)
    return Masks(*(jnp.broadcast_to(x[None], (shape[0], *x.shape)) for x in (hidden, each)))


def of_states(denoiser: TokenDenoiser, states: Array, mask: int) -> Categorical:
    """Over tokens `[B, M, L]`, of M states for each row: the denoiser sees them one by one, `[B, L]`."""
    logits = jax.vmap(lambda x: masking.predicted(denoiser, x, mask).logits, in_axes=1, out_axes=1)(states)
    return Categorical(logits)


def elbo(denoiser: TokenDenoiser, tokens: Array, masks: Masks, mask: int) -> Array:
    """`[B]`, of tokens `[B, L]`; of two models the difference is less noisy with the same masks."""
    many = jnp.broadcast_to(tokens[:, None], masks.hidden.shape)
    found = of_states(denoiser, masking.hide(many, masks.hidden, mask), mask)
    return jnp.sum(masks.weight * found.log_prob(many, mask=masks.hidden), axis=1)
