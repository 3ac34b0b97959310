"""Plans of a wished reward, which is learned (arXiv 2307.07055)."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.guidance.policy import Covariance
from jdp.diffusion.guidance.solver import inner
from jdp.diffusion.guidance.value import Value, posterior
from jdp.types import Denoiser, bind, expand


def _linear(weights: Array, offset: Array, x: Array, sigma: Array) -> Array:
    del sigma  # of clean plans
    return x.reshape(x.shape[0], -1) @ weights + offset


def linear_reward(x: Array, rewards: Array, *, ridge: float = 1.0) -> Partial:
    """The ridge regression of `rewards` `[N]` on plans `x` `[N, ..., D]`: a value of clean plans.

    `(X^T X + ridge I)^-1 X^T r` of centred plans and rewards (arXiv 2307.07055, equation 6): the
    least that labels of a few plans give, with which the rest is then judged.
    """
    flat = x.reshape(x.shape[0], -1)
    middle, mean = jnp.mean(flat, axis=0), jnp.mean(rewards)
    centred = flat - middle[None]
    gram = centred.T @ centred + ridge * jnp.eye(flat.shape[1], dtype=flat.dtype)
    weights = jnp.linalg.solve(gram, centred.T @ (rewards - mean))
    return bind(_linear, weights, mean - middle @ weights)


def _reward_conditioned(
    denoiser: Denoiser,
    reward: Value,
    target: Array,
    variance: Array,
    x: Array,
    sigma: Array,
    *,
    covariance: Covariance,
    sigma_data: float,
) -> Array:
    clean = jnp.zeros(x.shape[0], x.dtype)
    denoised, spread = posterior(denoiser, x, sigma, covariance, sigma_data)
    found, slope_of = jax.vjp(lambda z: reward(z, clean), denoised)
    slope = slope_of(jnp.ones_like(found))[0]
    pushed = spread(slope)
    miss = expand(jnp.broadcast_to(target, found.shape) - found, x)
    total = jnp.maximum(inner(slope, pushed), 0.0) + expand(jnp.broadcast_to(variance, found.shape), x)
    return denoised + pushed * miss / jnp.maximum(total, jnp.finfo(x.dtype).tiny)


def reward_conditioned(
    denoiser: Denoiser,
    reward: Value,
    target: Array | float,
    *,
    variance: Array | float = 0.01,
    covariance: Covariance = "jacobian",
    sigma_data: float = 1.0,
) -> Partial:
    """Denoiser of plans given that their reward, seen through noise of `variance`, IS `target`.

    `D + C g (target - R(D)) / (g^T C g + variance)`, with `g` the slope of the reward `R` at the clean point
    and `C` its covariance given `x`: exact for a linear reward of Gaussian plans. The paper (arXiv
    2307.07055, of which arXiv 2404.07771 is the overview) trains a denoiser on plans and their
    pseudo-rewards, as `decision_diffuser` does with returns; this needs none, and any reward can be asked of
    any trained denoiser. `value_guided` asks for more; this asks for so much.

    A wish within the data is met; beyond them plans leave the data in proportion to it. For Gaussians of
    covariance `S` they move by `S g (a - m) / (g^T S g)`: in the direction that the data vary in, where the
    denoiser tells which that is ("jacobian"). Of 16 entries on 4 (and a thickness of .1), with a reward
    regressed on 60 noisy labels, wishes of 1, 3 and 9 standard deviations of the data's rewards leave the
    part off the data at a root mean square of .35, .35 and .36 (.35 of the data themselves); with
    "isotropic", which follows the learned slope off the data too, .44, .63 and 1.49. The true reward was 1.08
    and .94 of what was asked. So ask within the rewards of the data.

    Args:
        reward: a pytree function `(x [B, ..., D], sigma [B]) -> [B]`, as that of `value_guided`; it is asked
            at clean points.
        target: `[]` or `[B]`, the reward that is asked for.
        variance: `[]` or `[B]`, how exactly: of the reward given the plan.
        covariance: as that of `value_guided`; "isotropic" without a pass backward through the denoiser.
        sigma_data: standard deviation of the normalised data.
    """
    numbers = (jnp.asarray(number, jnp.float32) for number in (target, variance))
    return bind(_reward_conditioned, denoiser, reward, *numbers, covariance=covariance, sigma_data=sigma_data)
