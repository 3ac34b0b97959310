"""A sampler's step as a distribution: what samplers draw from, and what policy gradients take the density of.

    step(denoiser, memory, x, sigma, sigma_next, *, eta, std_floor) -> (Distribution, memory)

`jdp.diffusion.chains` draws chains of them, and takes their density and divergence.

`x` is `[..., D]`; both levels are prefixes of its shape (see `jdp.types.Denoiser`), `sigma_next <= sigma`, an
entry. Of levels of rows, time steps or entries, those that do not change stay exactly where they are, with
std 0: those that are held at level 0, and those that wait in a schedule with a level per time step.
`std_floor` is the least std of an entry that moves, in the units of `x`, also of the step to level 0 (as in
DPPO, arXiv 2409.00588): with it every move has a density.

`eta` scales the noise, whose square is in proportion to `eta^2` in the limit of small steps: 0 is the ODE, 1
the reverse-time SDE, whose noise leaves no memory of the start, so that fine-tuning can reach the exact tilt
(adjoint matching, arXiv 2409.08861).
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.denoiser import network_levels
from jdp.distributions import Distribution, Normal
from jdp.types import Denoiser, PyTree, expand

Scalar = Array | float


class Step(Protocol):
    """One step of a chain; a module-level function, or a pytree function (`jdp.types.bind`).

    Args:
        denoiser: the model, `(x, sigma) -> x0_hat`.
        memory: what the step before returned, of a fixed structure; all zeros (or None) before the first
            step. `()` of steps without memory, which can be learned from one at a time.
        x: `[..., D]`, the state.
        sigma: its level, a prefix of the shape of `x`.
        sigma_next: the level of the next state, of the same shape.
        eta: `[]`, scales the noise.
        std_floor: `[]`, the least std of entries that move.
    """

    def __call__(
        self,
        denoiser: Denoiser,
        memory: Any,
        x: Array,
        sigma: Array,
        sigma_next: Array,
        *,
        eta: Scalar = ...,
        std_floor: Scalar = ...,
    ) -> tuple[Distribution, Any]: ...


def divided(a: Array, sigma: Array, x: Array) -> Array:
    """`a / sigma`, both prefixes of the shape of `x` and aligned with it; `a` where `sigma` is 0."""
    below = expand(sigma, x)
    return expand(a, x) / jnp.where(below > 0, below, 1.0)


def moved(x: Array, x_next: Array, sigma: Array, sigma_next: Array) -> Array:
    """`x_next`, but `x` to the last bit where the level of an entry does not change.

    One level for all, `[]`, is not looked at: no entry waits for others. Behind the barrier, XLA compiles
    `x_next` to the bits that it has with one level.
    """
    if sigma.ndim == 0:
        return x_next
    return jnp.where(expand(sigma, x) == expand(sigma_next, x), x, jax.lax.optimization_barrier(x_next))


def _root(square: Array) -> Array:
    """The square root, 0 at and below 0, with a finite slope there."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _normal(x: Array, mean: Array, std: Array, sigma: Array, sigma_next: Array, std_floor: Scalar) -> Normal:
    """The step to `mean` with the noise `std`, where the level changes."""
    falls = expand(sigma_next, x) < expand(sigma, x)
    if isinstance(std_floor, Array) or std_floor > 0:
        std = jnp.where(falls, jnp.maximum(std, std_floor), 0.0)
    elif sigma.ndim > 0:
        std = jnp.where(falls, std, 0.0)
    return Normal(moved(x, mean, sigma, sigma_next), std)


def euler_step(denoiser: Denoiser, x: Array, sigma: Array, sigma_next: Array) -> Array:
    """One Euler step of `dx / dsigma = (x - D) / sigma`; in these coordinates it is DDIM's step.

    Written as an interpolation between `D` and `x`, which stays finite as sigma falls to 0. Both levels are
    `[]` or prefixes of the shape of `x`; entries whose level does not change stay.
    """
    denoised = denoiser(x, network_levels(sigma, x))
    return moved(x, denoised + divided(sigma_next, sigma, x) * (x - denoised), sigma, sigma_next)


def heun_step(denoiser: Denoiser, x: Array, sigma: Array, sigma_next: Array) -> Array:
    """One Heun step (EDM, algorithm 1): two network calls, second order.

    Both levels are `[]`, with `sigma_next > 0`, or prefixes of the shape of `x`: then entries whose level
    does not change stay, and those that go to level 0 take Euler's step, since a correction there would
    evaluate the network at 0.
    """
    gap, one = expand(sigma_next, x) - expand(sigma, x), jnp.ones((), x.dtype)
    denoised = denoiser(x, network_levels(sigma, x))
    slope = divided(one, sigma, x) * (x - denoised)
    predicted = x + gap * slope
    ahead = denoiser(predicted, network_levels(sigma_next, x))
    slope_next = divided(one, sigma_next, x) * (predicted - ahead)
    corrected = x + gap * 0.5 * (slope + slope_next)
    if sigma_next.ndim == 0:
        return corrected
    # Behind a barrier, it is compiled to the same bits as with one level.
    corrected = jnp.where(expand(sigma_next, x) > 0, jax.lax.optimization_barrier(corrected), denoised)
    return jnp.where(gap == 0, x, corrected)


def ddim(
    denoiser: Denoiser,
    memory: PyTree,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
) -> tuple[Normal, PyTree]:
    """DDIM with noise (arXiv 2010.02502, equations 12 and 16); no memory.

    With `q = sigma'^2 / sigma^2`, of mean `D + sqrt(q) sqrt(1 - eta^2 (1 - q)) (x - D)` and std
    `eta sigma' sqrt(1 - q)`: `eta = 0` is Euler's step, 1 DDPM's posterior.
    """
    denoised = denoiser(x, network_levels(sigma, x))
    ratio = divided(sigma_next, sigma, x)
    lost = jnp.maximum(1 - jnp.square(ratio), 0.0)
    mean = denoised + ratio * _root(1 - jnp.square(eta) * lost) * (x - denoised)
    std = eta * expand(sigma_next, x) * _root(lost)
    return _normal(x, mean, std, sigma, sigma_next, std_floor), memory


def ddpm(
    denoiser: Denoiser,
    memory: PyTree,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
) -> tuple[Normal, PyTree]:
    """DDPM's posterior `q(x_next | x, x0 = D)` (arXiv 2006.11239, equations 6 and 7); no memory.

    With `q = sigma'^2 / sigma^2`, of mean `D + q (x - D)` and std `sigma' sqrt(1 - q)`: the variance
    `beta_tilde`, none at the step to 0. Here `eta` is a temperature: it scales the std alone (`ddim` keeps
    the marginals whatever `eta` is).
    """
    denoised = denoiser(x, network_levels(sigma, x))
    kept = jnp.square(divided(sigma_next, sigma, x))
    std = expand(sigma_next, x) * jnp.sqrt(jnp.maximum(1 - kept, 0.0)) * eta
    return _normal(x, denoised + kept * (x - denoised), std, sigma, sigma_next, std_floor), memory


def flow_sde(
    denoiser: Denoiser,
    memory: PyTree,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
) -> tuple[Normal, PyTree]:
    """The SDE of rectified flow of Flow-GRPO (arXiv 2505.05470), solved for a fixed `D`; no memory.

    There `z = (1 - t) x0 + t eps` follows
    `dz = (v + a^2 / (2 (1 - t)) (z + (1 - t) v)) dt + a sqrt(t / (1 - t)) dw`, with time running down. With
    `sigma = t / (1 - t)`, `x = (1 + sigma) z` and `v = (z - D) / t` it is
    `dx = (1 + eta^2) (x - D) / sigma dsigma + eta sqrt(2 sigma) dw` with `eta = a / sqrt(2)`, the same for
    every formulation; `eta = 1` is the memoryless noise of adjoint matching (arXiv 2409.08861). For a `D`
    that stays, with `r = sigma' / sigma`, the next state has mean `D + r^(1 + eta^2) (x - D)` and std
    `sigma' sqrt(1 - r^(2 eta^2))`. (Flow-GRPO takes Euler-Maruyama steps, equal to first order, whose noise
    is infinite at `t = 1`.)
    """
    denoised = denoiser(x, network_levels(sigma, x))
    s, s_next, square = expand(sigma, x), expand(sigma_next, x), jnp.square(eta)
    # Logarithms, so that the noise does not cancel for small steps; the step to 0 has none.
    inside = (s_next > 0) & (s > 0)
    fall = jnp.where(inside, jnp.log(jnp.where(inside, s / jnp.where(inside, s_next, 1.0), 1.0)), 0.0)
    kept = jnp.where(inside, jnp.exp(-(1 + square) * fall), 0.0)
    std = s_next * _root(-jnp.expm1(-2 * square * fall))
    return _normal(x, denoised + kept * (x - denoised), std, sigma, sigma_next, std_floor), memory


def consistency(
    denoiser: Denoiser,
    memory: PyTree,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
) -> tuple[Normal, PyTree]:
    """A jump of a consistency function and new noise (arXiv 2303.01469, algorithm 1); no memory.

    Here `denoiser` is a consistency function, `f(x, sigma)` where the ODE from `x` ends: the next state has
    mean `f` and std `sigma'`, which `eta` scales.
    """
    jumped = denoiser(x, network_levels(sigma, x))
    std = jnp.broadcast_to(eta * expand(sigma_next, x), x.shape)
    return _normal(x, jumped, std, sigma, sigma_next, std_floor), memory


class Multistep(NamedTuple):
    """What DPM-Solver++(2M) remembers of its last step; zeros before the first."""

    denoised: Array  # [..., D]
    sigma: Array  # the level it was denoised at, of the shape of the levels


def dpmpp_2m(
    denoiser: Denoiser,
    memory: Multistep | None,
    x: Array,
    sigma: Array,
    sigma_next: Array,
    *,
    eta: Scalar = 1.0,
    std_floor: Scalar = 0.0,
) -> tuple[Normal, Multistep]:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2), and with `eta > 0` its SDE (section 5).

    With `lambda = -ln sigma`, `h` the step in it, `r = h_last / h` and `D' = (1 + 1 / 2r) D - D_last / 2r`,
    of mean `D' + e^(-(1 + eta) h) (x - D')` and std `sigma' sqrt(1 - e^(-2 eta h))`: here the noise is of
    `eta`, not of its square. An entry's first step, one that follows a pause of its level, and the step to
    level 0 (where `h` is infinite) are first order.
    """
    memory = Multistep(jnp.zeros_like(x), jnp.zeros_like(sigma)) if memory is None else memory
    s, s_next, s_last = expand(sigma, x), expand(sigma_next, x), expand(memory.sigma, x)
    moves = (s > s_next) & (s_next > 0)
    second = moves & (s_last > s)
    denoised = denoiser(x, network_levels(sigma, x))
    log, log_next, log_last = (jnp.log(jnp.where(level > 0, level, 1.0)) for level in (s, s_next, s_last))
    h = log - log_next
    slope = jnp.where(second, h / (2 * jnp.where(second, log_last - log, 1.0)), 0.0)
    better = denoised + slope * (denoised - memory.denoised)
    mean = better + divided(sigma_next, sigma, x) ** (1 + eta) * (x - better)
    std = s_next * _root(jnp.where(moves, -jnp.expm1(-2 * eta * h), 0.0))
    return _normal(x, mean, std, sigma, sigma_next, std_floor), Multistep(denoised, sigma)
