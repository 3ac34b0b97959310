"""Consistency models (arXiv 2303.01469)."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import samplers
from jdp.diffusion.denoiser import Preconditioning, log_level, preconditioned
from jdp.diffusion.flow_maps.maps import levels_beside, squared_error
from jdp.types import Bound, Denoiser, Metrics, Params, expand, named_keys


def _scales(s: Array, *, sigma_min: float, sigma_data: float) -> tuple[Array, Array, Array]:
    c_in = jax.lax.rsqrt(jnp.square(s) + sigma_data**2)
    above = jnp.maximum(s - sigma_min, 0.0)  # at or below sigma_min, and at 0, x is the answer
    c_skip = sigma_data**2 / (jnp.square(above) + sigma_data**2)
    return c_in, c_skip, sigma_data * above * c_in


def consistency(
    apply: Callable[..., Array], params: Params, *, sigma_min: float = 0.002, sigma_data: float = 1.0
) -> Partial:
    """`f(x, sigma)`, where the ODE from `x` ends at `sigma_min` (arXiv 2303.01469, equation 5, appendix C).

    `f(x, sigma_min) = x` by construction, and at level 0. It has the arguments and leaves of `edm`, and is
    no posterior mean: sample with `samplers.consistency`.
    """
    settings = (("sigma_data", sigma_data), ("sigma_min", sigma_min))
    return preconditioned(apply, params, Preconditioning(Bound(_scales, settings), log_level))


def consistency_distillation(
    key: Array,
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    *,
    target: Params,
    teacher: Denoiser,
    sigmas: Array,
    known: Array | None = None,
    weight: Array | None = None,
    solver: Literal["heun", "euler"] = "heun",
    sigma_min: float = 0.002,
    sigma_data: float = 1.0,
) -> tuple[Array, Metrics]:
    """Loss of consistency distillation (arXiv 2303.01469, algorithm 2), as a squared error.

    `|f(x, sigma_k) - f_target(x', sigma_k+1)|^2` with `x = x0 + sigma_k n` and `x'` one step of `teacher`
    down `sigmas` `[n + 1]`, those of `karras(n)`: `sigma_min` the last but one, the 0 behind it unused. No
    gradient reaches `target`, a moving average of `params`. The key is consumed.

    Args:
        known: boolean prefix of the shape of `x0`: entries that are clean in training (see `guidance.hold`).
        weight: prefix of the shape of `x0`.
    """
    keys = named_keys(key, "level", "noise")
    k = jax.random.randint(keys["level"], x0.shape[:1], 0, sigmas.shape[0] - 2)
    sigma, sigma_next = (levels_beside(known, sigmas[i].astype(x0.dtype), x0) for i in (k, k + 1))
    x = x0 + expand(sigma, x0) * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
    step = samplers.heun_step if solver == "heun" else samplers.euler_step
    lower = step(teacher, x, sigma, sigma_next)
    goal = consistency(apply, target, sigma_min=sigma_min, sigma_data=sigma_data)(lower, sigma_next)
    found = consistency(apply, params, sigma_min=sigma_min, sigma_data=sigma_data)(x, sigma)
    loss = squared_error(found - jax.lax.stop_gradient(goal), sigma, weight)
    return loss, {"loss": loss}
