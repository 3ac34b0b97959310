"""Guidance: functions that take a denoiser and return a denoiser. They nest."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.types import Denoiser, Normal, bind, expand

At = Literal["moment", "denoised", "denoised_stopped"]
Covariance = Literal["isotropic", "jacobian"]
PolicyInSpace = Callable[[Array], Normal]  # observation channels -> Gaussian over action channels


def _inpaint(denoiser: Denoiser, known: Array, mask: Array, x: Array, sigma: Array) -> Array:
    return jnp.where(mask, known, denoiser(x, sigma))


def inpaint(denoiser: Denoiser, known: Array, mask: Array) -> Partial:
    """Holds the entries where `mask` at `known` (both of the shape of `x`).

    Their denoised value is `known`, so any sampler keeps them at `known + sigma * eps` on the way
    and ends at `known`: replacement conditioning (arXiv 2205.09991), approximate for the rest.
    """
    return bind(_inpaint, denoiser, jnp.asarray(known), jnp.asarray(mask))


def _hold(denoiser: Denoiser, known: Array, mask: Array, level: Array, x: Array, sigma: Array) -> Array:
    known, mask = jnp.broadcast_to(known, x.shape), jnp.broadcast_to(mask, x.shape)
    levels = jnp.broadcast_to(expand(sigma, x), x.shape)
    levels = jnp.where(mask, jnp.broadcast_to(expand(level, x), x.shape), levels)
    return jnp.where(mask, known, denoiser(jnp.where(mask, known, x), levels))


def hold(denoiser: Denoiser, known: Array, mask: Array, level: Array | float = 0.0) -> Partial:
    """Shows the denoiser the entries where `mask` as `known`, at the noise level `level`.

    For denoisers that know a level per entry. At level 0 the held entries are a clean condition, and
    what a sampler makes of the others is exact: a draw of the conditional `p(others | known)`. At
    `sigma_max`, with `sigma_max` times noise as `known`, the held entries say nothing: a draw of
    the others' marginal. (Unified World Models, arXiv 2504.02792; `inpaint` is for denoisers that
    know one level for all entries, and is approximate.)

    `known` and `mask` broadcast to `x`, `level` is `[]` or a prefix of its shape. The denoised value of
    the held entries is `known`, so any sampler ends at `known` there. Holds of different entries nest.
    """
    return bind(_hold, denoiser, jnp.asarray(known), jnp.asarray(mask), jnp.asarray(level, jnp.float32))


def _conditioned(
    denoiser: Denoiser,
    base: Denoiser | None,
    known: Array,
    mask: Array,
    x: Array,
    sigma: Array,
    *,
    solver_steps: int,
    floor: float,
    sigma_data: float,
) -> Array:
    s2 = jnp.broadcast_to(jnp.square(expand(sigma, x)), x.shape)
    r2 = s2 * sigma_data**2 / (s2 + sigma_data**2)

    def denoise(x: Array) -> Array:
        return (denoiser if base is None else base)(x, sigma)

    denoised, transpose_j = jax.vjp(denoise, x)
    _, push = jax.linearize(denoise, x)
    denoised = denoised if base is None else denoiser(x, sigma)

    def covariance(v: Array) -> Array:  # of the known entries, given the noisy x: J diag(sigma^2) among them
        return jnp.where(mask, push(s2 * v), 0.0)

    miss = jnp.where(mask, denoised - known, 0.0)
    v = _solve(covariance, floor * r2, miss, solver_steps)
    return jnp.where(mask, known, denoised - s2 * transpose_j(v)[0])


def condition(
    denoiser: Denoiser,
    known: Array,
    mask: Array,
    *,
    base: Denoiser | None = None,
    solver_steps: int = 3,
    floor: float = 0.1,
    sigma_data: float = 1.0,
) -> Partial:
    """Denoiser of the rest given that the entries in `mask` ARE `known` (both of the shape of `x`).

    `inpaint` shows the network the known entries under noise, and the rest follows them only where noise
    is low; a deterministic sampler has then already decided, and a window that begins at a given state
    does not go on from it. Here the rest is moved by the gradient of the likelihood of `known` under the
    posterior of those entries, a Gaussian around their denoised value (as in `policy_guided`; Boys et
    al. 2023, arXiv 2310.06721): `D - sigma^2 J^T C^-1 (D - known)` with `C = sigma^2 J` among them.

    Args:
        base: of a guided `denoiser` the one without guidance, whose Jacobian `J` is then: guidance is
            an approximation, and its derivative a worse one. None: the denoiser's own.
        solver_steps: conjugate-gradient steps for `C^-1`, of one jvp each; for a Gaussian the result is
            exact with as many steps as `C` has distinct eigenvalues.
        floor: the least variance believed, as a share of that of independent entries: the Jacobian of an
            imperfect network says too little, or less than nothing.
        sigma_data: standard deviation of the normalised data.
    """
    return bind(
        _conditioned,
        denoiser,
        base,
        jnp.asarray(known),
        jnp.asarray(mask),
        solver_steps=solver_steps,
        floor=floor,
        sigma_data=sigma_data,
    )


def _dot(a: Array, b: Array) -> Array:
    """Inner product of each trajectory, `[B, 1, ..., 1]`."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)


def _solve(matrix: Callable[[Array], Array], floor: Array, b: Array, steps: int) -> Array:
    """`steps` iterations of conjugate gradients for `matrix(v) = b`, one system a trajectory.

    One iteration is the Rayleigh quotient of `b`: `v = b <b, b> / <b, matrix(b)>`. The matrix is
    `diag(floor)` plus a covariance; where an imperfect network makes that "covariance" negative, the
    quotient stays at `floor`, which keeps the pull no larger than that of "denoised".
    """
    v, r, p = jnp.zeros_like(b), b, b
    tiny = jnp.finfo(b.dtype).tiny
    for _ in range(steps):
        q = matrix(p)
        rr = _dot(r, r)
        alpha = rr / jnp.maximum(jnp.maximum(_dot(p, q), _dot(p, floor * p)), tiny)
        v, r = v + alpha * p, r - alpha * q
        p = r + _dot(r, r) / jnp.maximum(rr, tiny) * p
    return v


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

        v = _solve(matrix, variance, c * e, solver_steps)

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
    return g / jnp.maximum(jnp.sqrt(_dot(g, g)), eps)


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
    code for the Euler sampler on `sigmas` `[n + 1]`; use it with that sampler.

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
