"""Networks that are gradients: whatever is made of them has a score that is one too."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jdp.types import Bound, Network, Params


def _apply(params: Params, x: Array, *given: Any, apply: Callable[..., Array]) -> Array:
    def potential(x: Array) -> Array:
        return 0.5 * jnp.sum(x * apply(params, x, *given))

    return jax.grad(potential)(x)


def conservative(network: Network) -> Network:
    """`network` f as the gradient in x of the potential `x . f(x) / 2`, with the same parameters.

    Of a linear f it is the symmetric part. Under any preconditioning the denoiser's Jacobian is symmetric,
    so its score is a gradient (arXiv 2402.03845; potentials of this kind: Salimans and Ho 2021). A call
    costs a pass forward and one backward.
    """
    return Network(network.init, Bound(_apply, (("apply", network.apply),)))
