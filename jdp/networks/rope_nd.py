"""Attention among points: rotary embedding over n axes, so that only where they lie to one another counts."""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.layers import NoiseEmbedding
from jdp.networks.transformer import DiffusionTransformer, positions


def frequencies(width: int, axes: int, shortest: float, longest: float) -> Array:
    """`[P]` angles a unit, for vectors of `width` entries: `P = width // (2 axes)` pairs turn by each axis.

    Wavelengths are geometric from `shortest` to `longest`, in the units of the points.
    """
    return 2 * math.pi / jnp.geomspace(shortest, longest, width // (2 * axes), dtype=jnp.float32)


def rotate(x: Array, at: Array, frequencies: Array) -> Array:
    """`x` `[B, N, H, W]` turned by where its tokens lie, `at` `[B, N, n]`.

    RoPE (arXiv 2104.09864) over n axes, as in 3D Diffuser Actor (arXiv 2402.10885): axis by axis, pairs of
    entries turn by angles in proportion to that coordinate, at `frequencies` `[P]`. What is left of W turns
    not. Lengths stay, and a product of two turned vectors depends on `at` by its difference alone.
    """
    batch, count, axes = at.shape
    pairs = axes * frequencies.shape[0]
    angle = at[..., None].astype(jnp.float32) * frequencies[None, None, None]
    angle = angle.reshape(batch, count, 1, pairs)
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos, rest], axis=-1)


def rotary_attention(
    query: Array, key: Array, value: Array, *, at: Array, frequencies: Array, values: bool = False
) -> Array:
    """`[B, N, H, W]` of queries, keys and values of that shape, of tokens that lie at `at` `[B, N, n]`.

    With `R(p)` the rotation at p, `out_i = sum_j softmax_j(q_i . R_ij k_j / sqrt(W)) R_ij v_j`, where
    `R_ij = R(p_j - p_i)`, the second one if `values` (GTA, arXiv 2310.10375). Without it a token hears by
    weights alone how far another one lies.
    """
    turned = [rotate(x, at, frequencies) for x in (query, key, *([value] if values else []))]
    out = nn.dot_product_attention(turned[0], turned[1], turned[2] if values else value)
    return rotate(out, -at, frequencies) if values else out


class Scene(NamedTuple):
    """What is seen, as points and features, by one who acts at the first of the points."""

    points: Array  # [B, N, n]; the first one is the reference
    features: Array  # [B, F], whatever does not move with the points
    reach: Array  # [B, n], how far from the reference an action of 1 lies, as the network sees actions


class PointTransformer(DiffusionTransformer):
    """A diffusion transformer with a token for every point and every action, whose attention is rotary.

    `(x [B, T, A], c_noise [B] or [B, T, A], Scene) -> [B, T, A]`. The entries `place` of an action say where
    it lies, axis by axis, at `reference + reach * x`; without them all lie at the reference. Nothing else
    knows of places, so the output stays if all points move alike. Each point is known by its number.
    `groups` holds the first entry of each group of an action's entries that has levels of its own.
    """

    place: tuple[int, ...] = ()
    groups: tuple[int, ...] = (0,)
    wavelengths: tuple[float, float] = (0.5, 32.0)
    values: bool = False

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Any = None) -> Array:
        scene, dtype, (batch, length, channels) = condition, self.dtype, x.shape
        count, axes = scene.points.shape[1:]
        embedding = self.embed(c_noise, scene.features)
        if embedding.shape[1] > 1:  # the points have the level of all
            of_all = jnp.mean(embedding, axis=1, keepdims=True)
            embedding = jnp.concatenate([jnp.repeat(of_all, count, axis=1), embedding], axis=1)
        known = self.param("known", nn.initializers.normal(1.0), (count, self.features))
        tokens = nn.Dense(self.features, dtype=dtype)(x)
        tokens = tokens + positions(length, self.features).astype(dtype)[None]
        known = jnp.broadcast_to(known.astype(dtype)[None], (batch, count, self.features))
        hidden = jnp.concatenate([known, tokens], axis=1)
        own = jnp.broadcast_to(scene.points[:, :1], (batch, length, axes))
        if self.place:
            own = own + scene.reach[:, None] * x[..., jnp.array(self.place)]
        at = jnp.concatenate([scene.points, own], axis=1)
        turns = frequencies(self.features // self.heads, axes, *self.wavelengths)
        attend = partial(rotary_attention, at=at, frequencies=turns, values=self.values)
        for _ in range(self.blocks):
            attention = nn.MultiHeadDotProductAttention(self.heads, dtype=dtype, attention_fn=attend)
            hidden = self.block(hidden, embedding, attention)
        return self.read(hidden, embedding, channels)[:, count:]

    def embed(self, c_noise: Array, features: Array) -> Array:
        """`[B, 1 or T, features]` of levels and of what is seen; called within `__call__` alone."""
        parts = []
        for i, entry in enumerate(self.groups):
            levels = c_noise if c_noise.ndim == 1 else c_noise[..., entry]
            layer = NoiseEmbedding(self.features, dtype=self.dtype)
            parts.append(layer(levels, None if i else features))
        return sum(parts[1:], parts[0])
