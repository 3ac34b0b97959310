"""Flax modules behind `init` and `apply`. Nothing here knows about diffusion or agents."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
from jax import Array

from jdp.errors import UserError
from jdp.networks.diffuser_unet import DiffuserUNet, HalfUNet
from jdp.networks.experts import ExpertTransformer
from jdp.networks.layers import Precision, dtype_of
from jdp.networks.pooled import PooledValue
from jdp.networks.temporal_unet import ResidualUNet, TemporalUNet
from jdp.networks.transformer import DiffusionTransformer, Mixer
from jdp.networks.transformer_value import TransformerValue
from jdp.types import Bound, Network, Params

Kind = Literal["unet", "residual_unet", "diffuser_unet", "mixer", "transformer", "experts"]
ValueKind = Literal["pooled", "half_unet", "transformer"]


@dataclass(frozen=True)
class NetworkConfig:
    """Which trajectory network, and how large."""

    kind: Kind = "residual_unet"
    """unet, diffuser_unet: of those papers; residual_unet, mixer: smaller; transformer: DiT; experts:
    of MoDE, chosen by the noise."""
    features: int = 32
    """Width of the first block; the U-Nets double it from block to block."""
    blocks: int = 3
    """Blocks (for the U-Nets: resolutions)."""

    def __post_init__(self) -> None:
        if self.features < 8 or self.blocks < 1:
            raise UserError(
                f"a network needs features >= 8 and blocks >= 1, not {self.features} and {self.blocks}"
            )


_MODULES = {
    "unet": TemporalUNet,
    "residual_unet": ResidualUNet,
    "diffuser_unet": DiffuserUNet,
    "mixer": Mixer,
    "transformer": DiffusionTransformer,
    "experts": ExpertTransformer,
}


def _init(
    key: Array, x: Array, c_noise: Array, condition: Array | None = None, *, module: nn.Module
) -> Params:
    return module.init(key, x, c_noise, condition)


def _apply(
    params: Any, x: Array, c_noise: Array, condition: Array | None = None, *, module: nn.Module
) -> Array:
    return module.apply(params, x, c_noise, condition)  # type: ignore[return-value]


def from_module(module: nn.Module) -> Network:
    """Any linen module `(x [B, T, D], c_noise, condition [B, C] or None) -> [B, T, D]` as a `Network`."""
    settings = (("module", module),)
    return Network(Bound(_init, settings), Bound(_apply, settings))


def make(config: NetworkConfig, precision: Precision = "float32") -> Network:
    """The network of `config`. Parameters are float32; `precision` is that of the arithmetic."""
    dtype = dtype_of(precision)
    return from_module(_MODULES[config.kind](features=config.features, blocks=config.blocks, dtype=dtype))


@dataclass(frozen=True)
class ValueNetworkConfig:
    """Which network judges a trajectory."""

    kind: ValueKind = "pooled"
    """pooled: residual convolutions and a mean over time; half_unet: of Diffuser; transformer: of Diffusion
    Veteran."""
    features: int = 32
    """Width of the first block, doubled from block to block; of the transformer, of all."""
    blocks: int = 3
    """Resolutions; of the transformer, layers."""


_VALUES = {"pooled": PooledValue, "half_unet": HalfUNet, "transformer": TransformerValue}


def make_value(config: ValueNetworkConfig, precision: Precision = "float32") -> Network:
    """A network `(x [B, T, D], c_noise [B], condition) -> [B]`, one float32 number a trajectory."""
    dtype = dtype_of(precision)
    return from_module(_VALUES[config.kind](features=config.features, blocks=config.blocks, dtype=dtype))


def parameter_count(params: Params) -> int:
    """Number of scalars in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


__all__ = [
    "DiffuserUNet",
    "DiffusionTransformer",
    "ExpertTransformer",
    "HalfUNet",
    "Kind",
    "Mixer",
    "NetworkConfig",
    "PooledValue",
    "Precision",
    "ResidualUNet",
    "TemporalUNet",
    "TransformerValue",
    "ValueKind",
    "ValueNetworkConfig",
    "from_module",
    "make",
    "make_value",
    "parameter_count",
]
