"""A network that is frozen, and one beside it that corrects it block by block (ControlNet-like)."""

from typing import Any

import flax.linen as nn
from jax import Array

from jdp.networks.conditional_mlp import ConditionalMLP, ResidualStream
from jdp.networks.layers import Precision, dtype_of
from jdp.types import Bound, Network, Params, named_keys


class BlockCorrections(ResidualStream):
    """`(x, c_noise, condition)` as `ConditionalMLP`; one `[B, features]` for each block, all 0 at first.

    Each is a linear map, begun with zeros, of what a stream of its own holds after that block.
    """

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, condition: Array) -> list[Array]:
        after = self.stream(x, c_noise, condition)[1:]
        linear = [nn.Dense(self.features, dtype=self.dtype, kernel_init=nn.initializers.zeros) for _ in after]
        return [layer(hidden) for layer, hidden in zip(linear, after, strict=True)]


def _init(
    key: Array,
    x: Array,
    c_noise: Array,
    condition: tuple[Array, Array],
    *,
    base: ConditionalMLP,
    residual: BlockCorrections,
) -> dict[str, Params]:
    keys, (first, seen) = named_keys(key, "base", "residual"), condition
    return {
        "base": base.init(keys["base"], x, c_noise, first),
        "residual": residual.init(keys["residual"], x, c_noise, seen),
    }


def _apply(
    params: Any,
    x: Array,
    c_noise: Array,
    condition: tuple[Array, Array],
    *,
    base: ConditionalMLP,
    residual: BlockCorrections,
) -> Array:
    first, seen = condition
    added: Any = residual.apply(params["residual"], x, c_noise, seen) if "residual" in params else ()
    return base.apply(params["base"], x, c_noise, first, added=added)  # pyright: ignore[reportReturnType]


def factorized_mlp(
    features: int = 256, blocks: int = 3, groups: tuple[int, ...] = (0,), precision: Precision = "float32"
) -> Network:
    """A `ConditionalMLP`, "base", and the `BlockCorrections` of another one as large, "residual".

    (FDP, arXiv 2509.16830.) The condition of both is `(first [B, C1], seen [B, C])`: the base is shown the
    first, the residual all. Parameters that hold the base alone are those of a network without
    corrections, which a residual that has not learned anything leaves as it is.
    """
    module = (features, blocks, groups, dtype_of(precision))
    settings = (("base", ConditionalMLP(*module)), ("residual", BlockCorrections(*module)))
    return Network(Bound(_init, settings), Bound(_apply, settings))
