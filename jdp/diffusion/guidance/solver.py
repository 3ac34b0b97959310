"""Linear systems of one trajectory each, known by their products."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array


def inner(a: Array, b: Array) -> Array:
    """Inner product of each trajectory, `[B, 1, ..., 1]`."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)


def solve(matrix: Callable[[Array], Array], floor: Array, b: Array, steps: int) -> Array:
    """`steps` iterations of conjugate gradients for `matrix(v) = b`, one system a trajectory.

    One iteration is the Rayleigh quotient of `b`: `v = b <b, b> / <b, matrix(b)>`. The matrix is
    `diag(floor)` plus a covariance; where an imperfect network makes that "covariance" negative, the
    quotient stays at `floor`, which keeps the pull no larger than that of "denoised".
    """
    v, r, p = jnp.zeros_like(b), b, b
    tiny = jnp.finfo(b.dtype).tiny
    for _ in range(steps):
        q = matrix(p)
        rr = inner(r, r)
        alpha = rr / jnp.maximum(jnp.maximum(inner(p, q), inner(p, floor * p)), tiny)
        v, r = v + alpha * p, r - alpha * q
        p = r + inner(r, r) / jnp.maximum(rr, tiny) * p
    return v


def ascend(
    covariance: Callable[[Array], Array], curve: Callable[[Array], Array], b: Array, steps: int, floor: float
) -> tuple[Array, Array]:
    """`(u, C u)` for `u - H C u = b` by `steps` of conjugate gradients; `curve` is `H`, `covariance` `C`.

    `I - H C` is self-adjoint in the inner product `<u, C v>`, in which all is done: one product each a
    step. Where `H` is positive beyond `1 - floor`, or an imperfect network makes `C` indefinite, the last
    step of a trajectory is one of `1 / floor` (Steihaug's rule: beyond it the system has no maximum).
    """
    u, r, p = jnp.zeros_like(b), b, b
    cu, cr = jnp.zeros_like(b), covariance(b)
    cp, tiny = cr, jnp.finfo(b.dtype).tiny
    rr = jnp.maximum(inner(r, cr), 0.0)
    going = jnp.ones_like(rr)
    for k in range(steps):
        q = p - curve(cp)
        alpha = rr / jnp.maximum(inner(cp, q), tiny)
        last, alpha = (alpha > 1 / floor), going * jnp.minimum(alpha, 1 / floor)
        u, cu = u + alpha * p, cu + alpha * cp
        going = jnp.where(last, 0.0, going)
        if k + 1 < steps:
            r = r - going * alpha * q
            cr, before = covariance(r), rr
            rr = jnp.maximum(inner(r, cr), 0.0)
            beta = going * rr / jnp.maximum(before, tiny)
            p, cp = r + beta * p, cr + beta * cp
    return u, cu
