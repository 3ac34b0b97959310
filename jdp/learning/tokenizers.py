"""Asymmetric tokenizers of chunks (arXiv 2503.02881): a latent of the actions, decoded along a channel."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jdp.data.normalise import Affine
from jdp.errors import check_settings
from jdp.networks.mlp import mlp
from jdp.networks.recurrent import Recurrent, gru, unrolled
from jdp.types import Metrics, Network, Params, named_keys

FLOOR = 1e-3  # of the standard deviation of a latent entry, and of its posterior


@dataclass(frozen=True)
class TokenizerConfig:
    """The encoder sees the actions of a chunk alone, the decoder the latent and the channel up to its step.

    So a latent must be small: what it has room for, the decoder need not take from the channel.
    """

    latent: int = 8
    """Entries of a latent; the authors have one for each of 32 actions."""
    encoder: int = 128
    """Width of the encoder."""
    decoder: int = 32
    """Width of the recurrent decoder."""
    kl: float = 1e-6
    """Weight of the posterior's divergence from N(0, 1)."""

    def __post_init__(self) -> None:
        widths = {name: (getattr(self, name), 1, 1 << 16) for name in ("latent", "encoder", "decoder")}
        check_settings("TokenizerConfig", kl=(self.kl, 0, 1e6), **widths)

    def encoding(self) -> Network:
        """From flat chunks `[B, T * A]` to mean and log std of a latent, `[B, 2 L]`."""
        return mlp((self.encoder, self.encoder, 2 * self.latent))

    def decoding(self, action_dim: int) -> Recurrent:
        """A step from latent and channel `[B, L + F]` to an action `[B, A]`."""
        return gru(self.decoder, 1, action_dim)


def first_params(key: Array, chunk: Array, channel: Array, config: TokenizerConfig) -> Params:
    """Of "encoder" and "decoder", for chunks `[B, T, A]` and channels `[B, T, F]`; the key is consumed."""
    keys, rows = named_keys(key, "encoder", "decoder"), chunk.shape[0]
    shown = jnp.zeros((rows, config.latent + channel.shape[-1]))
    return {
        "encoder": config.encoding().init(keys["encoder"], chunk.reshape(rows, -1)),
        "decoder": config.decoding(chunk.shape[-1]).init(keys["decoder"], shown),
    }


def posterior(params: Params, chunk: Array, config: TokenizerConfig) -> tuple[Array, Array]:
    """Mean and standard deviation `[B, L]` of the latents of chunks `[B, T, A]`."""
    encoded = config.encoding().apply(params["encoder"], chunk.reshape(chunk.shape[0], -1))
    mean, log_std = jnp.split(encoded, 2, axis=-1)
    return mean, FLOOR + jnp.exp(jnp.minimum(log_std, 5.0))


def decode(params: Params, latent: Array, channel: Array, config: TokenizerConfig, action_dim: int) -> Array:
    """`[B, T, A]`, actions of latents `[B, L]`; each has seen the channel `[B, T, F]` up to its step."""
    held = jnp.broadcast_to(latent[:, None], (*channel.shape[:2], latent.shape[1]))
    shown = jnp.concatenate([held, channel], axis=-1)
    return unrolled(config.decoding(action_dim), params["decoder"], shown)


def divergence(mean: Array, std: Array) -> Array:
    """`[]`, of N(mean, std^2) from N(0, 1) in nats: the sum over entries, the mean over the rows `[B, L]`."""
    nats = 0.5 * (jnp.square(mean) + jnp.square(std) - 1) - jnp.log(std)
    return jnp.mean(jnp.sum(nats, axis=-1))


def loss(
    key: Array, params: Params, chunk: Array, channel: Array, config: TokenizerConfig
) -> tuple[Array, Metrics]:
    """Mean absolute error of decoded chunks `[B, T, A]` and weighted `divergence`; the key is consumed."""
    mean, std = posterior(params, chunk, config)
    latent = mean + std * jax.random.normal(key, mean.shape)
    found = decode(params, latent, channel, config, chunk.shape[-1])
    error, kl = jnp.mean(jnp.abs(found - chunk)), divergence(mean, std)
    return error + config.kl * kl, {"reconstruction": error, "kl": kl}


def moved(latents: Affine, mean: Array, share: Array) -> Affine:
    """The statistics of latents, moved by a `share` of the way to those of a batch of means `[B, L]`."""
    square = jnp.square(latents.std) + jnp.square(latents.mean)
    first = latents.mean + share * (jnp.mean(mean, axis=0) - latents.mean)
    second = square + share * (jnp.mean(jnp.square(mean), axis=0) - square)
    return Affine(first, jnp.sqrt(jnp.maximum(second - jnp.square(first), FLOOR**2)))
