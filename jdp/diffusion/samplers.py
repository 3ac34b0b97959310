"""Samplers: `(denoiser, x, sigmas) -> x0`, each a scan over a public step.

`x` `[..., D]` is the noisy start at level `sigmas[0]` (for a pure sample `sigmas[0] * normal`), `sigmas`
`[n + 1]` falls to 0 at the end, or to any level for a truncated chain. With `trace=True` the result is
the chain `[n + 1, ...]` that begins with `x`. The denoiser is a pytree, so a jitted sampler takes it as
an argument.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.denoiser import network_levels as _levels
from jdp.types import Denoiser, expand


def _divided(a: Array, sigma: Array, x: Array) -> Array:
    """`a / sigma`, aligned with `x`; 0 where both are."""
    below = expand(sigma, x)
    return expand(a, x) / jnp.where(below > 0, below, 1.0)


def _chain(step: Callable, x: Array, carry, inputs, trace: bool) -> Array:
    """Scan `step((x, carry), input) -> (x, carry)` over the inputs."""

    def body(state, item):
        state = step(state, item)
        return state, state[0] if trace else None

    (final, _), rest = jax.lax.scan(body, (x, carry), inputs)
    return final if rest is None else jnp.concatenate([x[None], rest])


def euler_step(denoiser: Denoiser, x: Array, sigma: Array, sigma_next: Array) -> Array:
    """One Euler step of `dx / dsigma = (x - D) / sigma`; in these coordinates it is DDIM's step.

    Written as an interpolation between `D` and `x`, which stays finite as sigma falls to 0. Both levels are
    `[]` or prefixes of the shape of `x`; entries at level 0 stay.
    """
    denoised = denoiser(x, _levels(sigma, x))
    return denoised + _divided(sigma_next, sigma, x) * (x - denoised)


def euler(
    denoiser: Denoiser, x: Array, sigmas: Array, *, key: Array | None = None, trace: bool = False
) -> Array:
    """Euler, the deterministic DDIM (arXiv 2010.02502); one network call a step, first order."""
    del key

    def step(state, pair):
        return euler_step(denoiser, state[0], pair[0], pair[1]), None

    return _chain(step, x, None, (sigmas[:-1], sigmas[1:]), trace)


ddim = euler


def heun_step(denoiser: Denoiser, x: Array, sigma: Array, sigma_next: Array) -> Array:
    """One Heun step (EDM, algorithm 1): two network calls, second order; `sigma_next > 0`.

    Both levels are `[]` or prefixes of the shape of `x`; entries at level 0 stay.
    """
    gap, one = expand(sigma_next, x) - expand(sigma, x), jnp.ones((), x.dtype)
    slope = _divided(one, sigma, x) * (x - denoiser(x, _levels(sigma, x)))
    predicted = x + gap * slope
    slope_next = _divided(one, sigma_next, x) * (predicted - denoiser(predicted, _levels(sigma_next, x)))
    return x + gap * 0.5 * (slope + slope_next)


def heun(
    denoiser: Denoiser, x: Array, sigmas: Array, *, key: Array | None = None, trace: bool = False
) -> Array:
    """Heun's method (arXiv 2206.00364, algorithm 1), `2 n - 1` network calls.

    The last step, to level 0, is Euler's: a correction there would evaluate the network at 0.
    `sigmas[:-1]` must be positive.
    """
    del key

    def step(state, pair):
        return heun_step(denoiser, state[0], pair[0], pair[1]), None

    return _finish(denoiser, _chain(step, x, None, (sigmas[:-2], sigmas[1:-1]), trace), sigmas, trace)


def _finish(denoiser: Denoiser, result: Array, sigmas: Array, trace: bool) -> Array:
    last = result[-1] if trace else result
    final = euler_step(denoiser, last, sigmas[-2], sigmas[-1])
    return jnp.concatenate([result, final[None]]) if trace else final


class Churn(NamedTuple):
    """Noise added back before each step (arXiv 2206.00364, algorithm 2)."""

    amount: float = 80.0  # S_churn
    sigma_min: float = 0.05  # S_tmin
    sigma_max: float = 50.0  # S_tmax
    noise: float = 1.003  # S_noise


def churn_step(key: Array, x: Array, sigma: Array, n: int, churn: Churn) -> tuple[Array, Array]:
    """`(x_hat, sigma_hat)`: the state raised to a higher noise level; the key is consumed."""
    gamma = min(churn.amount / n, 2**0.5 - 1)
    active = (sigma >= churn.sigma_min) & (sigma <= churn.sigma_max)
    sigma_hat = sigma * (1 + jnp.where(active, gamma, 0.0))
    extra = jnp.sqrt(jnp.maximum(jnp.square(sigma_hat) - jnp.square(sigma), 0.0))
    return x + extra * churn.noise * jax.random.normal(key, x.shape, x.dtype), sigma_hat


def _churned(stepper: Callable, denoiser, x, sigmas, *, key, churn: Churn, trace: bool) -> Array:
    if key is None:
        raise ValueError("a churned sampler draws noise: pass key=")
    n = sigmas.shape[0] - 1

    def step(state, item):
        # The whole step, predictor included, starts from x_hat: it carries the noise of sigma_hat.
        k, sigma, sigma_next = item
        x_hat, sigma_hat = churn_step(k, state[0], sigma, n, churn)
        return stepper(denoiser, x_hat, sigma_hat, sigma_next), None

    keys = jax.random.split(key, n)
    result = _chain(step, x, None, (keys[:-1], sigmas[:-2], sigmas[1:-1]), trace)
    last, sigma_hat = churn_step(keys[-1], result[-1] if trace else result, sigmas[-2], n, churn)
    final = euler_step(denoiser, last, sigma_hat, sigmas[-1])
    return jnp.concatenate([result, final[None]]) if trace else final


def churned_heun(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    churn: Churn = Churn(),  # noqa: B008 (an immutable tuple)
    trace: bool = False,
) -> Array:
    """Heun with churn (arXiv 2206.00364, algorithm 2); the key is consumed."""
    return _churned(heun_step, denoiser, x, sigmas, key=key, churn=churn, trace=trace)


def churned_euler(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    churn: Churn = Churn(),  # noqa: B008 (an immutable tuple)
    trace: bool = False,
) -> Array:
    """Euler with churn; the key is consumed."""
    return _churned(euler_step, denoiser, x, sigmas, key=key, churn=churn, trace=trace)


def _multistep(
    denoiser: Denoiser, x: Array, sigmas: Array, keys: Array | None, eta: float, trace: bool
) -> Array:
    """DPM-Solver++(2M); with `keys` its stochastic form, where `eta` scales the noise."""

    def step(state, item):
        x, last = state
        sigma, sigma_next, sigma_last, second, key = item
        denoised = denoiser(x, _levels(sigma, x))
        h, h_last = jnp.log(sigma) - jnp.log(sigma_next), jnp.log(sigma_last) - jnp.log(sigma)
        slope = jnp.where(second, h / (2 * jnp.where(second, h_last, 1.0)), 0.0)
        better = denoised + slope * (denoised - last)
        x = better + (sigma_next / sigma) ** (1 + eta) * (x - better)
        if key is not None:
            spread = sigma_next * jnp.sqrt(-jnp.expm1(-2 * eta * h))
            x = x + spread * jax.random.normal(key, x.shape, x.dtype)
        return x, denoised

    second = jnp.arange(sigmas.shape[0] - 2) > 0
    before = jnp.concatenate([sigmas[:1], sigmas[:-2]])[:-1]
    inputs = (sigmas[:-2], sigmas[1:-1], before, second, keys)
    return _finish(denoiser, _chain(step, x, jnp.zeros_like(x), inputs, trace), sigmas, trace)


def dpmpp_2m(
    denoiser: Denoiser, x: Array, sigmas: Array, *, key: Array | None = None, trace: bool = False
) -> Array:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2): second order, one network call a step.

    With `lambda = -ln sigma`, `h` the step in it and `r = h_last / h`, the extrapolated
    `D' = (1 + 1 / 2r) D - D_last / 2r` takes the place of `D` in the exponential Euler step. The
    first step and the step to level 0 (where `h` is infinite) are first order.
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
    `dpmpp_2m`, 1 the reverse-time SDE. One network call a step; of a trained network its samples obey
    the dynamics better than the ODE's at as many steps, at a somewhat larger error of spread. The key
    is consumed.
    """
    return _multistep(denoiser, x, sigmas, _keys(key, sigmas)[:-1], eta, trace)


def ddpm_step(
    key: Array,
    denoiser: Denoiser,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    temperature: Array | float = 1.0,
) -> Array:
    """One draw of DDPM's posterior `q(x_next | x, x0 = D)` (arXiv 2006.11239, equations 6 and 7).

    With `q = sigma_next^2 / sigma^2` it is `D + q (x - D) + sigma_next sqrt(1 - q) n`: the noise of variance
    `beta_tilde`, none at the last step. Both levels are `[]` or prefixes of the shape of `x`; the key is
    consumed.
    """
    denoised = denoiser(x, _levels(sigma, x))
    kept = jnp.square(_divided(sigma_next, sigma, x))
    spread = expand(sigma_next, x) * jnp.sqrt(jnp.maximum(1 - kept, 0.0)) * temperature
    return denoised + kept * (x - denoised) + spread * jax.random.normal(key, x.shape, x.dtype)


def ddpm(
    denoiser: Denoiser,
    x: Array,
    sigmas: Array,
    *,
    key: Array | None,
    temperature: Array | float = 1.0,
    trace: bool = False,
) -> Array:
    """Ancestral sampling, DDPM (arXiv 2006.11239, algorithm 2); one network call a step.

    `temperature` scales the noise of every step (Decision Diffuser, arXiv 2211.15657, takes .5, also for
    `x`). The key is consumed.
    """

    def step(state, item):
        k, sigma, sigma_next = item
        return ddpm_step(k, denoiser, state[0], sigma, sigma_next, temperature), None

    return _chain(step, x, None, (_keys(key, sigmas), sigmas[:-1], sigmas[1:]), trace)


def _keys(key: Array | None, sigmas: Array) -> Array:
    if key is None:
        raise ValueError("a stochastic sampler draws noise: pass key=")
    return jax.random.split(key, sigmas.shape[0] - 1)


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
        spread = jnp.sqrt(jnp.maximum(jnp.square(sigma_next) - sigma_min**2, 0.0))
        jumped = model(state[0], _levels(sigma, x))
        return jumped + spread * jax.random.normal(k, x.shape, x.dtype), None

    return _chain(step, x, None, (_keys(key, sigmas), sigmas[:-1], sigmas[1:]), trace)


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
        return model(state[0], _levels(pair[0], x), _levels(pair[1], x)), None

    return _chain(step, x, None, (sigmas[:-1], sigmas[1:]), trace)


# Those of denoisers. `consistency` and `flow_map` sample from other models with the same arguments.
Sampler = Callable[..., Array]
SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "churned_heun": churned_heun,
    "churned_euler": churned_euler,
    "ddpm": ddpm,
}
network_calls: dict[str, Callable[[int], int]] = {
    "euler": lambda n: n,
    "heun": lambda n: 2 * n - 1,
    "dpmpp_2m": lambda n: n,
    "dpmpp_2m_sde": lambda n: n,
    "churned_heun": lambda n: 2 * n - 1,
    "churned_euler": lambda n: n,
    "ddpm": lambda n: n,
}
__all__ = [
    "SAMPLERS",
    "Churn",
    "churn_step",
    "churned_euler",
    "churned_heun",
    "consistency",
    "ddim",
    "ddpm",
    "ddpm_step",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "euler",
    "euler_step",
    "flow_map",
    "heun",
    "heun_step",
    "network_calls",
]
