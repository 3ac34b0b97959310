"""The temporal U-Net of Diffuser (arXiv 2205.09991, appendix C), and the half of it as a judge."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jdp.networks.group_norm import GroupNormMish, mish
from jdp.networks.layers import TemporalConv, columns

GROUPS = 8


class LevelEmbedding(nn.Module):
    """`c_noise` `[B]` -> `[B, features]`, `[B, T]` -> `[B, T, features]`: sinusoids, two layers.

    Of a level for each channel, `[B, T, D]`, the highest of a time step counts: channels without noise are
    known, and are told from the others by their place. A `condition` `[B, C]` is added.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, c_noise: Array, condition: Array | None) -> Array:
        level = c_noise.max(-1) if c_noise.ndim == 3 else c_noise
        w = jnp.geomspace(1.0, 64.0, self.features // 2, dtype=jnp.float32)
        angles = level[..., None] * w.reshape((1,) * level.ndim + w.shape)
        hidden = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        hidden = mish(nn.Dense(4 * self.features, dtype=self.dtype)(hidden))
        hidden = nn.Dense(self.features, dtype=self.dtype)(hidden)
        if condition is not None and condition.shape[-1]:  # an empty condition says nothing
            given = mish(nn.Dense(4 * self.features, dtype=self.dtype)(condition))
            given = nn.Dense(self.features, dtype=self.dtype)(given)
            hidden = hidden + (given if level.ndim == 1 else given[:, None])
        return hidden


def pooled(embedding: Array, blocks: int) -> list[Array]:
    """The embedding at each resolution: of a level a row as it is, of one a step the mean of neighbours.

    A step at half the resolution is centred on the even steps; the mean of each even step's embedding and the
    next one's stands for it (an odd last one for itself). Means of embeddings, not of levels: the network
    still hears that a clean step and a noisy one lie below, and equal levels are as one level.
    """
    pyramid = [embedding]
    for _ in range(blocks - 1):
        finer = pyramid[-1]
        if finer.ndim == 3:
            even = jnp.concatenate([finer, finer[:, -1:]], axis=1) if finer.shape[1] % 2 else finer
            finer = (even[:, 0::2] + even[:, 1::2]) * jnp.asarray(0.5, finer.dtype)
        pyramid.append(finer)
    return pyramid


class ConvBlock(nn.Module):
    """Convolution, group norm, Mish."""

    features: int
    kernel_size: int = 5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = TemporalConv(self.features, self.kernel_size, self.dtype)(x)
        return GroupNormMish(GROUPS, self.dtype, name="GroupNorm_0")(x)


class Residual(nn.Module):
    """Two convolution blocks, the embedding `[B, F]` or `[B, T, F]` added between them, and a shortcut."""

    features: int
    kernel_size: int = 5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        hidden = ConvBlock(self.features, self.kernel_size, self.dtype)(x)
        added = nn.Dense(self.features, dtype=self.dtype)(mish(embedding))
        hidden = hidden + (added[:, None] if added.ndim == 2 else added)
        hidden = ConvBlock(self.features, self.kernel_size, self.dtype)(hidden)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype)(x)
        return x + hidden


class Downsample(nn.Module):
    """Convolution of kernel 3 and stride 2, `[B, T, C] -> [B, ceil(T / 2), C]`, as one matrix product."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        length = x.shape[1]
        padded = jnp.pad(x, ((0, 0), (1, 1 + length % 2), (0, 0)))
        taps = [padded[:, i : i + length : 2] for i in range(3)]
        return nn.Dense(x.shape[-1], dtype=self.dtype)(jnp.concatenate(taps, axis=-1))


class _Kernel(nn.Module):
    """The kernel `[inputs, features]` of an `nn.Dense` without bias."""

    features: int

    @nn.compact
    def __call__(self, inputs: int) -> Array:
        return self.param("kernel", nn.initializers.lecun_normal(), (inputs, self.features))


class Upsample(nn.Module):
    """Transposed convolution of kernel 4 and stride 2, `[B, T, C] -> [B, 2 T, C]`."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, length, channels = x.shape
        even, odd = (_Kernel(channels, name=f"Dense_{i}")(2 * channels) for i in range(2))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # Even outputs see the input before and their own, odd ones their own and the next. One product makes
        # both, side by side; two products and a stack cost more: XLA's CPU backend gathers their cotangents
        # by strides.
        both = jnp.concatenate(
            [jnp.pad(even, ((0, channels), (0, 0))), jnp.pad(odd, ((channels, 0), (0, 0)))], axis=1
        )
        seen = columns(x.astype(self.dtype), 3).reshape(batch * length, -1)
        pairs = (seen @ both.astype(self.dtype)).reshape(batch, 2 * length, channels)
        return pairs + bias.astype(self.dtype)[None, None]


class DiffuserUNet(nn.Module):
    """Residual U-Net of widths `features * 2^i`, kernels of 5; any length (odd ones are rounded up).

    `features=32, blocks=4` are the published 32, 64, 128, 256: 3.96 M parameters at 14 channels. A level per
    time step is embedded at each of them; group norm lets every step hear of it.
    """

    features: int = 32
    blocks: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        channels, dtype = x.shape[-1], self.dtype
        embeddings = pooled(LevelEmbedding(self.features, dtype)(c_noise, condition), self.blocks)
        widths = [self.features * 2**i for i in range(self.blocks)]
        hidden, skips = x, []
        for i, (width, embedding) in enumerate(zip(widths, embeddings, strict=True)):
            hidden = Residual(width, dtype=dtype)(hidden, embedding)
            hidden = Residual(width, dtype=dtype)(hidden, embedding)
            skips.append(hidden)
            if i + 1 < self.blocks:
                hidden = Downsample(dtype)(hidden)
        for _ in range(2):
            hidden = Residual(widths[-1], dtype=dtype)(hidden, embeddings[-1])
        for width, skip, embedding in zip(widths[-2::-1], skips[:0:-1], embeddings[:0:-1], strict=True):
            hidden = jnp.concatenate([hidden[:, : skip.shape[1]], skip], axis=-1)
            hidden = Residual(width, dtype=dtype)(hidden, embedding)
            hidden = Residual(width, dtype=dtype)(hidden, embedding)
            hidden = Upsample(dtype)(hidden)
        hidden = ConvBlock(self.features, dtype=dtype)(hidden[:, : x.shape[1]])
        return nn.Dense(channels, dtype=jnp.float32)(hidden)


class HalfUNet(nn.Module):
    """The way down of the U-Net with kernels of 3, then one number: Diffuser's value network, `-> [B]`.

    A plan is judged at one level, the highest of its entries.
    """

    features: int = 32
    blocks: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array | None = None) -> Array:
        dtype, level = self.dtype, c_noise.reshape(c_noise.shape[0], -1).max(-1)
        embedding = LevelEmbedding(self.features, dtype)(level, condition)
        hidden = x
        for i in range(self.blocks):
            for _ in range(2):
                hidden = Residual(self.features * 2**i, 3, dtype)(hidden, embedding)
            hidden = Downsample(dtype)(hidden)
        width = hidden.shape[-1]
        for divisor in (2, 4):
            hidden = Residual(max(width // divisor, GROUPS), 3, dtype)(hidden, embedding)
            hidden = Downsample(dtype)(hidden)
        hidden = jnp.concatenate([hidden.reshape(x.shape[0], -1), embedding], axis=-1)
        hidden = mish(nn.Dense(max(hidden.shape[-1] // 2, 1), dtype=dtype)(hidden))
        return nn.Dense(1, dtype=jnp.float32)(hidden)[:, 0]
