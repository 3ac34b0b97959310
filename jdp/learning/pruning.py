"""Fewer blocks by position, and what is left learns from the whole (HierarchicalPrune, arXiv 2508.04663).

Three parts of the paper: later blocks go first; early ones are kept, and may be held fixed while the rest
learns; what is left learns from the whole network, each block the more the less sensitive it is. Blocks go as
a whole here (in the paper also parts of blocks), and there is no quantisation.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import ArrayLike

from jdp.diffusion.formulations import Formulation
from jdp.errors import UserError
from jdp.networks.depth import block_count, depth_prune, layer_blocks
from jdp.types import Metrics, Network, Params, PyTree, expand


def sensitivity(network: Network, params: Params, loss: Callable[[Network, Params], Array]) -> Array:
    """`[blocks]`, by how much the loss rises where each block alone is left out.

    Args:
        network: a residual MLP, a transformer or a mixer of two blocks or more.
        loss: `loss(network, params) -> []`, for instance the error of denoising the same noised batch.

    Raises:
        UserError: for other networks.
    """
    blocks = block_count(network)
    if blocks < 2:
        raise UserError("a network of one block has none to leave out")
    each = [depth_prune(network, params, [b for b in range(blocks) if b != left]) for left in range(blocks)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[params for _, params in each])
    return jax.lax.map(partial(loss, each[0][0]), stacked) - loss(network, params)


def kept_blocks(sensitivities: ArrayLike, count: int, *, protected: int | None = None) -> tuple[int, ...]:
    """`count` of the blocks whose `sensitivities` are `[blocks]`: what `depth_prune` keeps.

    The first `protected` stay; of those behind them the least sensitive go, the later one of equals.
    None: the first `count`, by position alone.

    Raises:
        UserError: unless `protected <= count <= blocks`.
    """
    values = np.asarray(sensitivities)
    protected = count if protected is None else protected
    if not 0 <= protected <= count <= len(values):
        raise UserError(
            f"{count} blocks of {len(values)} cannot be kept, with the first {protected} protected"
        )
    behind = sorted(range(protected, len(values)), key=lambda block: (-values[block], block))
    return tuple(sorted([*range(protected), *behind[: count - protected]]))


def distillation_rates(
    network: Network, params: Params, sensitivities: ArrayLike | None = None, *, protected: int = 0
) -> PyTree:
    """How fast each layer of a pruned network learns, a share of the learning rate; of `params`'s structure.

    Args:
        sensitivities: `[blocks]`, of its own blocks: a block learns at the rate of the least sensitive one's
            sensitivity over its own, at most 1; one that is not sensitive at all, at 1. None: all at 1.
        protected: so many blocks at the front, and with them all that lies before the blocks, do not learn.
    """
    blocks = block_count(network)
    values = np.ones(blocks) if sensitivities is None else np.asarray(sensitivities, float)
    positive = np.maximum(values, max(1e-3 * values.max(), 1e-12))
    rates = np.append(positive.min() / positive, 1.0)  # the last: of what follows the blocks
    rates[:protected] = 0.0
    found = {
        name: float(protected == 0) if block is None else float(rates[block])
        for name, block in layer_blocks(network, params).items()
    }
    return {
        kind: {
            name: jax.tree.map(lambda _, rate=found[name]: jnp.float32(rate), layer)
            for name, layer in tree.items()
        }
        for kind, tree in params.items()
    }


def at_rates(optimiser: optax.GradientTransformation, rates: PyTree) -> optax.GradientTransformation:
    """`optimiser`, whose updates are multiplied by the `rates` of each leaf; its state stays as it is."""

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        updates, state = optimiser.update(updates, state, params)
        return jax.tree.map(jnp.multiply, updates, rates), state

    return optax.GradientTransformation(optimiser.init, update)


def distillation_loss(
    formulation: Formulation,
    student: tuple[Callable[..., Array], Params],
    teacher: tuple[Callable[..., Array], Params],
    x: Array,
    sigma: Array,
    *,
    weight: Array | None = None,
) -> tuple[Array, Metrics]:
    """Mean squared distance between what two networks of one formulation predict of `x`.

    `student` and `teacher` are `(apply, params)` as `Formulation.denoiser` takes them; `x` `[B, ...]` is data
    with noise of the levels `sigma`, a prefix of it, above 0; `weight` is a prefix of `x` too. The scale is
    that of the formulation's own loss, which this one replaces.
    """
    gap = formulation.denoiser(*student)(x, sigma) - jax.lax.stop_gradient(
        formulation.denoiser(*teacher)(x, sigma)
    )
    scales = formulation.judged or formulation.preconditioning.scales
    error = jnp.square(gap / scales(expand(sigma, x))[2])
    loss = jnp.mean(error if weight is None else expand(weight, x) * error)
    return loss, {"loss": loss}
