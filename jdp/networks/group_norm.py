"""Group norm and Mish in one, with a derivative of few passes over the data."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

EPSILON = 1e-5


def _mish_and_slope(x: Array) -> tuple[Array, Array]:
    """`x n / (n + 2)` with `n = e^x (e^x + 2)`, and its slope.

    Where `e^x` is cut, at 20, the quotient and the slope are 1 in float32.
    """
    below = jnp.minimum(x, 20.0)
    e = jnp.exp(below)
    n = e * (e + 2)
    inverse = 1 / (n + 2)
    share = n * inverse
    return x * share, share + below * (4 * e * (e + 1) * inverse) * inverse


@jax.custom_jvp
def mish(x: Array) -> Array:
    """`x tanh(softplus(x))` (arXiv 1908.08681), with one exponential for it and its slope."""
    return _mish_and_slope(x)[0]


@mish.defjvp
def _mish_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    out, slope = _mish_and_slope(*primals)
    return out, slope * tangents[0]


def _over_groups(x: Array, groups: int) -> Array:
    """The mean over the channels of each group, `[B, 1, C] -> [B, 1, C]`."""
    batch, _, channels = x.shape
    mean = x.reshape(batch, 1, groups, -1).mean(-1, keepdims=True)
    return jnp.broadcast_to(mean, (batch, 1, groups, channels // groups)).reshape(x.shape)


def _over_time(x: Array) -> Array:
    return x.mean(1, keepdims=True)


def _normalised(x: Array, groups: int) -> tuple[Array, Array]:
    """`x` of mean 0 and variance 1 in each group, and what it was multiplied by, `[B, 1, C]`."""
    mean, square = (_over_groups(_over_time(z), groups) for z in (x, jnp.square(x)))
    rate = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + EPSILON)
    return (x - mean) * rate, rate


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _norm_mish(x: Array, scale: Array, shift: Array, groups: int) -> Array:
    normal, _ = _normalised(x, groups)
    return mish(normal * scale[None, None] + shift[None, None])


@_norm_mish.defjvp
def _norm_mish_jvp(
    groups: int, primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    (x, scale, shift), (dx, dscale, dshift) = primals, tangents
    normal, rate = _normalised(x, groups)
    out, slope = _mish_and_slope(normal * scale[None, None] + shift[None, None])
    rate = rate * scale[None, None]
    # d normal = rate (dx - its mean - normal * the mean of normal * dx)
    shifted = _over_groups(_over_time(dx), groups)
    scaled = _over_groups(_over_time(normal * dx), groups)
    along = dscale[None, None] - rate * scaled
    return out, slope * (rate * dx + normal * along + (dshift[None, None] - rate * shifted))


def group_norm_mish(x: Array, scale: Array, shift: Array, groups: int) -> Array:
    """`mish(scale * normalised + shift)` of `x` `[B, T, C]`; `scale` and `shift` are `[C]`.

    Each group of neighbouring channels is normalised over its channels and all times (arXiv 1803.08494).
    The derivative, in either mode, sums over time no more than the (co)tangent and its product with the
    normalised `x`; all else is `[B, 1, C]`.
    """
    return _norm_mish(x, scale, shift, groups)  # pyright: ignore[reportCallIssue]


class GroupNormMish(nn.Module):
    """`group_norm_mish` with the parameters of `nn.GroupNorm`; statistics are float32."""

    groups: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        shift = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return group_norm_mish(x.astype(jnp.float32), scale, shift, self.groups).astype(self.dtype)
