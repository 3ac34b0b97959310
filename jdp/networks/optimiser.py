"""One optimiser step, the same for diffusers and agents."""

import jax
import optax

from jdp.types import Params, PyTree


def step(
    optimiser: optax.GradientTransformation, gradient: Params, opt_state: PyTree, params: Params
) -> tuple[Params, PyTree]:
    """`(new params, new optimiser state)`."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer counts
        updates, opt_state = optimiser.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
