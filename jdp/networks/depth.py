"""Networks of equal blocks with fewer of them: whole residual blocks are left out, the rest stays as it is.

A block adds to what leads through the network, so a network without one is a network of the same kind. Of
U-Nets, whose blocks differ in width and in length, no block can be left out.
"""

import re
from collections.abc import Mapping, Sequence

import flax.linen as nn

from jdp.errors import UserError
from jdp.networks.conditional_mlp import ConditionalMLP
from jdp.networks.transformer import DiffusionTransformer, Mixer
from jdp.types import Bound, Network, Params

# Flax numbers layers by their kind as they are made: so many before the blocks, and so many in each block.
_LAYERS: dict[type[nn.Module], dict[str, tuple[int, int]]] = {
    ConditionalMLP: {"Dense": (2, 2), "LayerNorm": (0, 1), "Modulate": (0, 1), "told": (0, 1)},
    DiffusionTransformer: {
        "MultiHeadDotProductAttention": (0, 1),
        "_Gate": (0, 2),
        "Modulate": (0, 2),
        "Dense": (1, 2),
    },
    Mixer: {"LayerNorm": (0, 2), "Dense": (1, 4), "Modulate": (0, 1)},
}


def _module(network: Network) -> tuple[nn.Module, dict[str, tuple[int, int]]]:
    """The module behind a network, and how its layers are numbered."""
    settings = dict(network.apply.settings) if isinstance(network.apply, Bound) else {}
    module = settings.get("module")
    if type(module) not in _LAYERS:
        known = ", ".join(kind.__name__ for kind in _LAYERS)
        raise UserError(f"blocks can be left out of {known}, not of {type(module).__name__}")
    return module, _LAYERS[type(module)]  # type: ignore[return-value, index]


def block_count(network: Network) -> int:
    """Blocks of a residual MLP, a transformer or a mixer.

    Raises:
        UserError: for other networks.
    """
    return _module(network)[0].blocks  # type: ignore[attr-defined]


def block_of(name: str, numbers: Mapping[str, tuple[int, int]]) -> int | None:
    """The block that the layer `name` belongs to, counted on behind the last one; None: before them all."""
    found = re.fullmatch(r"(.+)_(\d+)", name)
    if found is None or found[1] not in numbers:
        return None
    before, each = numbers[found[1]]
    number = int(found[2]) - before
    return None if number < 0 else number // each


def layer_blocks(network: Network, params: Params) -> dict[str, int | None]:
    """Of each layer in `params["params"]` the block, `block_count` behind them all; None: before them."""
    module, numbers = _module(network)
    blocks = module.blocks  # type: ignore[attr-defined]
    found = {name: block_of(name, numbers) for name in params["params"]}
    return {name: None if block is None else min(block, blocks) for name, block in found.items()}


def depth_prune(network: Network, params: Params, keep: Sequence[int]) -> tuple[Network, Params]:
    """`network` with the blocks `keep` alone, and their parameters; no number changes.

    The result is the network that its config makes with `blocks = len(keep)`: of NetworkConfig, or of a
    policy.

    Args:
        params: as `network.init` makes them; leaves may have leading axes.
        keep: numbers of blocks from 0 on, rising, at least one.

    Raises:
        UserError: if the network has no blocks that can be left out, or not these.
    """
    module, numbers = _module(network)
    blocks = module.blocks  # type: ignore[attr-defined]
    keep = tuple(keep)
    if not keep or list(keep) != sorted(set(keep)) or not set(keep) <= set(range(blocks)):
        raise UserError(f"keep {list(keep)}: name at least one of the blocks 0 to {blocks - 1}, in order")
    settings = (("module", module.clone(blocks=len(keep))),)
    smaller = Network(*(Bound(f.function, settings) for f in network))  # type: ignore[attr-defined]
    place = {block: i for i, block in enumerate(keep)} | {blocks: len(keep)}  # the last: what follows them
    kept = {}
    for name, block in layer_blocks(network, params).items():
        if block is None:
            kept[name] = params["params"][name]
        elif block in place:
            kind, number = name.rsplit("_", 1)
            moved = int(number) + (place[block] - block) * numbers[kind][1]
            kept[f"{kind}_{moved}"] = params["params"][name]
    return smaller, {**params, "params": kept}
