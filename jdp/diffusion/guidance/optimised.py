"""Optimisation of the noised plan itself against a cost (Diffusion Implicit Policy, arXiv 2412.02261)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.guidance.solver import inner
from jdp.errors import UserError, check_settings
from jdp.types import Denoiser, bind, expand

CleanCost = Callable[[Array], Array]  # x0 [B, ..., D] -> [B], a pytree function (jdp.types.bind)


def _optimised(
    denoiser: Denoiser,
    cost: CleanCost,
    rate: Array,
    radius: Array,
    latest: Array,
    x: Array,
    sigma: Array,
    *,
    iterations: int,
) -> Array:
    levels = jnp.broadcast_to(expand(sigma, x), x.shape)
    count = np.sqrt(np.prod(x.shape[1:]))
    most = radius * count * jnp.max(levels, axis=tuple(range(1, x.ndim)), keepdims=True)
    active = levels <= latest

    def slope(x: Array) -> Array:
        return jax.grad(lambda x: jnp.sum(cost(denoiser(x, sigma))))(x)

    def descend(moved: Array, _: None) -> tuple[Array, None]:
        there = moved - rate * jnp.where(active & (levels > 0), slope(x + moved), 0.0)
        length = jnp.sqrt(jnp.maximum(inner(there, there), jnp.finfo(x.dtype).tiny))
        return there * jnp.minimum(1.0, most / length), None

    moved, _ = jax.lax.scan(descend, jnp.zeros_like(x), None, length=iterations)
    return denoiser(x + moved, sigma) + moved


def optimised(
    denoiser: Denoiser,
    cost: CleanCost,
    *,
    rate: Array | float = 0.1,
    iterations: int = 5,
    radius: Array | float = 1.0,
    latest: Array | float = 1.0,
) -> Partial:
    """Denoiser that moves the noised plan until its clean point costs less (arXiv 2412.02261).

    `x' = x - rate grad C(D(x))` is repeated, and the move kept within a ball; then `D(x') + (x' - x)`. An
    Euler step that halves the level, from `x` by this denoiser, is that hook and then the plain step from
    `x'`, to the last digit; steps of other sizes move in proportion to the logarithm of the level, so that,
    as with all guidance here, the effect does not hang on the number of steps. Where the paper moves the
    state between the steps of one sampler, this is a denoiser: any sampler, planner and policy takes it. Each
    iteration is a forward and a backward pass.

    Args:
        cost: `C(x0 [B, ..., D]) -> [B]`, a pytree function, differentiable.
        rate: `[]`, of an iteration.
        iterations: at a level; 0 is the denoiser itself.
        radius: `[]`, of the ball: the root mean square of a row's move, in the level's standard deviations.
        latest: `[]`, the highest level at which plans are moved, where the clean point is a plan already
            (about the last half of a Karras schedule of standardised data); above it the denoiser is as it
            was.

    Keyframes go outside: `inpaint(optimised(...), known, mask)`, or `hold`, which are then exact.

    Raises:
        UserError: for a negative number of iterations.
    """
    check_settings("optimised", iterations=(iterations, 0, 1 << 20))
    numbers = (jnp.asarray(number, jnp.float32) for number in (rate, radius, latest))
    return bind(_optimised, denoiser, cost, *numbers, iterations=iterations)


def blend(first: Array, second: Array, overlap: int) -> Array:
    """`[..., T1 + T2 - overlap, D]`: two segments as one, mixed where they overlap (arXiv 2412.02261).

    The last `overlap` rows of `first` `[..., T1, D]` are of the same times as the first ones of `second`
    `[..., T2, D]`; the share of `second` rises from `1 / (overlap + 1)` in even steps. Segments that
    agree in the overlap stay as they are. (The paper's rotations are blended in their powers; here all
    entries are linear.)

    Raises:
        UserError: if the overlap is longer than a segment, or negative.
    """
    t1, t2 = first.shape[-2], second.shape[-2]
    if not 0 <= overlap <= min(t1, t2):
        raise UserError(
            f"overlap is {overlap} rows; of segments of {t1} and {t2} it must lie from 0 to {min(t1, t2)}"
        )
    share = jnp.arange(1, overlap + 1, dtype=first.dtype).reshape((1,) * (first.ndim - 2) + (-1, 1)) / (
        overlap + 1
    )
    tail, head = first[..., t1 - overlap :, :], second[..., :overlap, :]
    joint = tail + share * (head - tail)
    return jnp.concatenate([first[..., : t1 - overlap, :], joint, second[..., overlap:, :]], axis=-2)
