"""Samplers: `(denoiser, x, sigmas) -> x0`, each a scan over a step of `jdp.diffusion.transitions`.

`x` `[..., D]` is the noisy start at level `sigmas[0]` (for a pure sample `sigmas[0] * normal`), `sigmas`
`[n + 1]` falls to 0 at the end, or to any level for a truncated chain. Its rows may be levels of single
entries: `[n + 1, *prefix]` with a prefix of the shape of `x`, axes of length 1 allowed (`[n + 1, B]`,
`[n + 1, 1, T]`, `[n + 1, B, T, D]`; see `schedules.pyramid`). Entries whose level is the same before and
after a step stay exactly as they are. With `trace=True` the result is the chain `[n + 1, ...]` that begins
with `x`. The denoiser is a pytree, so a jitted sampler takes it as an argument.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion import transitions
from jdp.diffusion.chains import draw, sample, scan, split
from jdp.diffusion.churn import Churn, churn_step, churned_euler, churned_heun
from jdp.diffusion.denoiser import network_levels as _levels
from jdp.diffusion.transitions import Multistep, Scalar, euler_step, heun_step, moved
from jdp.types import Denoiser, expand


def euler(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None = None,
    eta: Scalar = 0.0,
    std_floor: Scalar = 0.0,
    trace: bool = False,
) -> Array:
    """Euler, the deterministic DDIM (arXiv 2010.02502); one network call a step, first order.

    With `eta` or `std_floor` above 0 it is DDIM with noise (`transitions.ddim`), and the key is consumed.
    """
    if not isinstance(eta, Array) and not isinstance(std_floor, Array) and eta == std_floor == 0:

        def step(state, pair):
            return euler_step(denoiser, state[0], pair[0], pair[1]), None

        return scan(step, x, None, (sigmas[:-1], sigmas[1:]), trace)
    options = {"key": key, "eta": eta, "std_floor": std_floor, "trace": trace}
    return sample(transitions.ddim, denoiser, x, sigmas, memory=(), **options)


ddim = euler


def heun(
    denoiser: Denoiser, x: Array, sigmas: Array, *, key: Array | None = None, trace: bool = False
) -> Array:
    """Heun's method (arXiv 2206.00364, algorithm 1), `2 n - 1` network calls.

    The last step, and any entry's step to level 0, is Euler's: a correction there would evaluate the network
    at 0.
    """
    del key

    def step(state, pair):
        return heun_step(denoiser, state[0], pair[0], pair[1]), None

    return _finish(denoiser, scan(step, x, None, (sigmas[:-2], sigmas[1:-1]), trace), sigmas, trace)


def _finish(denoiser: Denoiser, result: Array, sigmas: Array, trace: bool) -> Array:
    last = result[-1] if trace else result
    final = euler_step(denoiser, last, sigmas[-2], sigmas[-1])
    return jnp.concatenate([result, final[None]]) if trace else final


def _multistep(
    denoiser: Denoiser, x: Array, sigmas: Array, keys: Array | None, eta: Scalar, trace: bool
) -> Array:
    """DPM-Solver++(2M); with `keys` its stochastic form. The last step is Euler's, wherever it ends."""
    nothing = Multistep(jnp.zeros_like(x), jnp.zeros_like(sigmas[0]))
    step, levels = transitions.dpmpp_2m, sigmas[:-1]
    result = draw(step, denoiser, x, levels, keys, eta=eta, memory=nothing, trace=trace)
    return _finish(denoiser, result, sigmas, trace)


def dpmpp_2m(
    denoiser: Denoiser, x: Array, sigmas: Array, *, key: Array | None = None, trace: bool = False
) -> Array:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): second order, one network call a step.

    With `lambda = -ln sigma`, `h` the step in it and `r = h_last / h`, the extrapolated
    `D' = (1 + 1 / 2r) D - D_last / 2r` takes the place of `D` in the exponential Euler step. The
    first step and the last, whatever level it ends at, are first order (see `transitions.dpmpp_2m`).
    """
    del key
    return _multistep(denoiser, x, sigmas, None, 0.0, trace)


def dpmpp_2m_sde(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    eta: float = 1.0,
    trace: bool = False,
) -> Array:
    """SDE-DPM-Solver++(2M) (arXiv 2211.01095, section 5): fresh noise corrects errors on the way.

    `x' = q x + (1 - q) D' + sigma' sqrt(1 - e^(-2 eta h)) n` with `q = e^(-(1 + eta) h)`; `eta = 0` is
    `dpmpp_2m`, 1 the reverse-time SDE; the last step brings no noise. One network call a step; of a trained
    network its samples obey the dynamics better than the ODE's at as many steps, at a somewhat larger error
    of spread. The key is consumed.
    """
    return _multistep(denoiser, x, sigmas, split(key, sigmas)[:-1], eta, trace)


def ddpm(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    temperature: Scalar = 1.0,
    std_floor: Scalar = 0.0,
    trace: bool = False,
) -> Array:
    """Ancestral sampling, DDPM (arXiv 2006.11239, algorithm 2): draws of `transitions.ddpm`; one call a step.

    `temperature` scales the noise of every step (Decision Diffuser, arXiv 2211.15657, takes .5, also for
    `x`). The key is consumed.
    """
    options = {"key": key, "eta": temperature, "std_floor": std_floor, "trace": trace}
    return sample(transitions.ddpm, denoiser, x, sigmas, memory=(), **options)


def flow_sde(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    noise: float = 0.7,
    std_floor: Scalar = 0.0,
    trace: bool = False,
) -> Array:
    """Draws of `transitions.flow_sde`, the SDE of Flow-GRPO (arXiv 2505.05470); one network call a step.

    `noise` is that paper's `a`: 0 is Euler, `sqrt(2)` the memoryless SDE, whose steps are DDPM's. The key is
    consumed.
    """
    options = {"key": key, "eta": noise / 2**0.5, "std_floor": std_floor, "trace": trace}
    return sample(transitions.flow_sde, denoiser, x, sigmas, memory=(), **options)


def consistency(
    model: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    sigma_min: float = 0.002,
    trace: bool = False,
) -> Array:
    """Multistep sampling of a consistency model (arXiv 2303.01469, algorithm 1): jump, add noise, jump.

    `model` is a `jdp.diffusion.flow_maps.consistency` (of a denoiser, posterior means would come out). `n`
    calls for `sigmas` `[n + 1]`; the first is the level of `x`, and 0 at the end brings no noise. The key
    is consumed.
    """

    def step(state, item):
        k, sigma, sigma_next = item
        spread = expand(jnp.sqrt(jnp.maximum(jnp.square(sigma_next) - sigma_min**2, 0.0)), x)
        jumped = model(state[0], _levels(sigma, x))
        noised = jumped + spread * jax.random.normal(k, x.shape, x.dtype)
        return moved(state[0], noised, sigma, sigma_next), None

    return scan(step, x, None, (split(key, sigmas), sigmas[:-1], sigmas[1:]), trace)


def flow_map(
    model: Callable[[Array, Array, Array], Array],
    x: Array,
    sigmas: Array,
    *,
    key: Array | None = None,
    trace: bool = False,
) -> Array:
    """Steps of a `jdp.diffusion.flow_maps.FlowMap` down `sigmas` `[n + 1]`: `n` calls, no noise."""
    del key

    def step(state, pair):
        x_next = model(state[0], _levels(pair[0], x), _levels(pair[1], x))
        return moved(state[0], x_next, pair[0], pair[1]), None

    return scan(step, x, None, (sigmas[:-1], sigmas[1:]), trace)


Sampler = Callable[..., Array]
SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "churned_heun": churned_heun,
    "churned_euler": churned_euler,
    "ddpm": ddpm,
    "flow_sde": flow_sde,
}
FLOW_SAMPLERS: dict[str, Sampler] = {"consistency": consistency, "flow_map": flow_map}  # not of denoisers
network_calls: dict[str, Callable[[int], int]] = {
    "euler": lambda n: n,
    "heun": lambda n: 2 * n - 1,
    "dpmpp_2m": lambda n: n,
    "dpmpp_2m_sde": lambda n: n,
    "churned_heun": lambda n: 2 * n - 1,
    "churned_euler": lambda n: n,
    "ddpm": lambda n: n,
    "flow_sde": lambda n: n,
}
__all__ = [
    "FLOW_SAMPLERS",
    "SAMPLERS",
    "Churn",
    "churn_step",
    "churned_euler",
    "churned_heun",
    "consistency",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler",
    "euler_step",
    "flow_map",
    "flow_sde",
    "heun",
    "heun_step",
    "network_calls",
    "sample",
]
