"""Guidance by a policy: policy-guided diffusion (arXiv 2404.06356)."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.guidance.solver import inner, solve
from jdp.types import Denoiser, Normal, bind, expand

At = Literal["moment", "denoised", "denoised_stopped"]
Covariance = Literal["isotropic", "jacobian"]
PolicyInSpace = Callable[[Array], Normal]  # observation channels -> Gaussian over action channels


def _policy_guided(
    denoiser: Denoiser,
    policy: PolicyInSpace,
    coefficient: Array,
    x: Array,
    sigma: Array,
    *,
    observation_dim: int,
    action_dim: int,
    at: At,
    covariance: Covariance,
    solver_steps: int,
    state_gradient: bool,
    sigma_data: float,
) -> Array:
    c = coefficient.astype(x.dtype)
    actions = slice(observation_dim, observation_dim + action_dim)
    s2 = jnp.broadcast_to(jnp.square(expand(sigma, x)), x.shape)
    r2 = s2 * sigma_data**2 / (s2 + sigma_data**2)

    def residual(x0: Array) -> tuple[Array, Array]:
        mean, std = policy(x0[..., :observation_dim])
        mean = mean if state_gradient else jax.lax.stop_gradient(mean)
        return x0[..., actions] - mean, jax.lax.stop_gradient(jnp.square(std))

    def denoise(x: Array) -> Array:
        return denoiser(x, sigma)

    # e = a - mu(s) at the denoised point; P = de/dx0 and J = dD/dx act through their transposes.
    denoised, transpose_j = jax.vjp(denoise, x)
    e, transpose_p, variance = jax.vjp(residual, denoised, has_aux=True)

    # The pull v = (Sigma / c + C)^-1 e, with C the covariance of e given x.
    if at != "moment":
        v = c * e / variance
    elif covariance == "isotropic":
        v = c * e / (variance + c * r2[..., actions])
    else:
        _, push = jax.linearize(lambda x: residual(denoise(x))[0], x)

        def matrix(v: Array) -> Array:  # Sigma + c P Cov[x0 | x] P^T, Cov = J diag(sigma^2)
            spread = push(s2 * transpose_p(v)[0])
            return variance * v + c * spread

        v = solve(matrix, variance, c * e, solver_steps)

    pull = transpose_p(v)[0]
    if at == "denoised_stopped":
        return denoised - r2 * pull
    return denoised - s2 * transpose_j(pull)[0]


def policy_guided(
    denoiser: Denoiser,
    policy: PolicyInSpace,
    coefficient: Array | float = 1.0,
    *,
    observation_dim: int,
    action_dim: int,
    at: At = "moment",
    covariance: Covariance = "isotropic",
    solver_steps: int = 1,
    state_gradient: bool = False,
    sigma_data: float = 1.0,
) -> Partial:
    """Denoiser of `p(trajectory) prod_t pi(a_t | s_t)^c`, for a Gaussian policy `pi` (arXiv 2404.06356).

    The guided denoiser is `D + sigma^2 grad_x log E[pi(a0 | s0)^c | x]`. Given `x`, the clean action is
    nearly Gaussian around `D_a` with covariance `C`, so the expectation is
    `N(D_a; mu(D_s), Sigma / c + C)`; its gradient is taken through the network.

    On Gaussians this is the exact product with `covariance="jacobian"`, as many `solver_steps` as a
    trajectory has action entries, and `state_gradient`. The defaults are an approximation that costs
    one backward pass: where the steps of a trajectory move together, `C` is not isotropic, and the mean moves
    by another amount and the spread stays wider than the product's.

    Args:
        denoiser: of trajectories `x` `[B, ..., D]` whose channels are observation, action, others.
        policy: a pytree function `observation [..., O] -> Normal(mean, std [..., A])` in the coordinates
            of `x`. For trajectories of `jdp.data` these are standardised PRE-TANH actions, and
            `jdp.synthesis.target_policy` makes such a policy from an agent. Of a deterministic actor
            `std` is a choice: in `target_policy` it is `policy_std`, in units of the data's own spread.
        coefficient: `c`; 0 leaves the denoiser as it is.
        at: "moment" as above. "denoised": `C = 0`, the gradient of `log pi` at the denoised point,
            through the network, times `sigma^2`: BIASED (it pulls too far, and narrows). The same with
            "denoised_stopped": not through the network, times `r^2`: cheap, no backward pass, biased.
        covariance: "isotropic", `C = r^2 I` with `r^2 = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2)`:
            exact for independent channels of standard deviation `sigma_data`. "jacobian",
            `C = P (sigma^2 dD/dx) P^T` with `P` the derivative of `a - mu(s)`, inverted by
            `solver_steps` conjugate-gradient steps of one jvp each: 1 is the projection on `a - mu(s)`;
            with as many steps as action entries it is exact for correlated Gaussians.
        state_gradient: whether `mu(s)` carries a gradient to the states. True is the product above,
            and exact for a linear policy; False (as in the paper) moves states only through the
            network, so that a rough actor cannot bend them.
        sigma_data: standard deviation of the normalised data.
    """
    return bind(
        _policy_guided,
        denoiser,
        policy,
        jnp.asarray(coefficient, jnp.float32),
        observation_dim=observation_dim,
        action_dim=action_dim,
        at=at,
        covariance=covariance,
        solver_steps=solver_steps,
        state_gradient=state_gradient,
        sigma_data=sigma_data,
    )


def normalise_safely(g: Array, eps: float = 1e-8) -> Array:
    """`g / max(|g|, eps)`, the norm over all axes but the first: zero, not NaN, at a zero gradient."""
    return g / jnp.maximum(jnp.sqrt(inner(g, g)), eps)


def _reference_guided(
    denoiser: Denoiser,
    log_prob: Callable[[Array, Array], Array],
    coefficient: Array,
    sigmas: Array,
    x: Array,
    sigma: Array,
    *,
    observation_dim: int,
    action_dim: int,
    point: str,
    normalise: bool,
    cosine: float,
) -> Array:
    n = sigmas.shape[0] - 1
    level = expand(sigma, x)
    k = jnp.argmin(jnp.abs(level[..., None] - jnp.broadcast_to(sigmas[:-1], (*level.shape, n))), axis=-1)
    ratio = k.astype(x.dtype) / n
    push = 1 - ratio + cosine * jnp.sin(jnp.pi * (ratio + 1 / n))
    weight = coefficient.astype(x.dtype) * jnp.where(k == n - 1, 0.0, push)

    z = denoiser(x, sigma) if point == "denoised" else x
    observation = z[..., :observation_dim]
    actions = slice(observation_dim, observation_dim + action_dim)
    g = jax.grad(lambda a: log_prob(observation, a).sum())(z[..., actions])
    g = normalise_safely(g) if normalise else g
    delta = jnp.zeros_like(x).at[..., actions].set(weight * g)
    # An Euler step to sigma' from x + delta is the step from x with D + delta sigma' / (sigma - sigma').
    gain = sigmas[k + 1] / (sigmas[k] - sigmas[k + 1])
    return denoiser(x + delta, sigma) + gain * delta


def reference_guided(
    denoiser: Denoiser,
    log_prob: Callable[[Array, Array], Array],
    coefficient: Array | float,
    sigmas: Array,
    *,
    observation_dim: int,
    action_dim: int,
    point: Literal["noised", "denoised"] = "noised",
    normalise: bool = False,
    cosine: float = 0.3,
) -> Partial:
    """The heuristic of the public code of policy-guided diffusion, for parity: not a posterior.

    Before step `k` of `n`, the action channels move by `lambda_k grad_a log pi(a | s)` with
    `lambda_k = c (1 - k / n + w sin(pi (k + 1) / n))`, zero at the last step; the gradient is taken at the
    noised or the denoised point, does not reach the states, and may be scaled to unit norm over the
    trajectory. The total push grows with `n`, so coefficients belong to one schedule. Equal to that
    code for the Euler sampler on `sigmas` `[n + 1]`; use it with that sampler. (Levels per time step are
    looked up in `sigmas` one by one: rows of `schedules.pyramid(sigmas, ...)` are.)

    `log_prob(observation [B, T, O], action [B, T, A]) -> [B, T]` is a pytree function in the
    coordinates of `x` (see `jdp.synthesis.target_log_prob`).
    """
    return bind(
        _reference_guided,
        denoiser,
        log_prob,
        jnp.asarray(coefficient, jnp.float32),
        sigmas,
        observation_dim=observation_dim,
        action_dim=action_dim,
        point=point,
        normalise=normalise,
        cosine=cosine,
    )
