"""Flax modules behind `init` and `apply`. Nothing here knows about diffusion or agents."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jdp.networks.temporal_unet import ResidualUNet, TemporalUNet
from jdp.networks.transformer import DiffusionTransformer, Mixer
from jdp.types import Bound, Network, Params

Kind = Literal["unet", "residual_unet", "mixer", "transformer"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class NetworkConfig:
    """Which trajectory network, and how large."""

    kind: Kind = "residual_unet"
    """unet: the one of the policy-guided diffusion paper; residual_unet, mixer: smaller; transformer: DiT."""
    features: int = 32
    """Width of the first block; the U-Nets double it from block to block."""
    blocks: int = 3
    """Blocks (for the U-Nets: resolutions)."""


_MODULES = {
    "unet": TemporalUNet,
    "residual_unet": ResidualUNet,
    "mixer": Mixer,
    "transformer": DiffusionTransformer,
}


def _init(key: Array, x: Array, c_noise: Array, *, module: nn.Module) -> Params:
    return module.init(key, x, c_noise)


def _apply(params: Any, x: Array, c_noise: Array, *, module: nn.Module) -> Array:
    return module.apply(params, x, c_noise)  # type: ignore[return-value]


def from_module(module: nn.Module) -> Network:
    """Any linen module `(x [B, T, D], c_noise) -> [B, T, D]` as a `Network`."""
    settings = (("module", module),)
    return Network(Bound(_init, settings), Bound(_apply, settings))


def make(config: NetworkConfig, precision: Precision = "float32") -> Network:
    """The network of `config`. Parameters are float32; `precision` is that of the arithmetic."""
    dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
    return from_module(_MODULES[config.kind](features=config.features, blocks=config.blocks, dtype=dtype))


def parameter_count(params: Params) -> int:
    """Number of scalars in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


__all__ = [
    "DiffusionTransformer",
    "Kind",
    "Mixer",
    "NetworkConfig",
    "Precision",
    "ResidualUNet",
    "TemporalUNet",
    "from_module",
    "make",
    "parameter_count",
]
