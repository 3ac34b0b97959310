"""What a network is trained to predict, and at which levels: EDM, VP diffusion, DDPM, rectified flow.

They differ in four things, which stand in a `Formulation`; what is made of one is a `Denoiser` in the
coordinate `x = x0 + sigma eps` like any other, so that samplers and guidance know of none of them.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import losses, schedules
from jdp.diffusion.denoiser import Preconditioning, edm_preconditioning, preconditioned
from jdp.diffusion.losses import Shape, as_shape
from jdp.diffusion.times import COSINE, FLOW, LINEAR, TO_DATA, Process
from jdp.errors import UserError
from jdp.types import Bound, Metrics, Params, expand, named_keys

Prediction = Literal["eps", "x0", "v"]
Space = Literal["own", "x0", "eps", "v", "score"]
Scales = Callable[[Array], tuple[Array, Array, Array]]  # level -> (c_in, c_skip, c_out), see Preconditioning


@dataclass(frozen=True)
class Formulation:
    """A way to train a network and to make a denoiser of it. Hashable; equal settings compare equal."""

    name: str
    preconditioning: Preconditioning
    levels: Callable[[Array, Shape, Any], Array]
    # levels(key, shape, dtype) -> sigma, for training: shape is B or a prefix of that of x0, (B,), (B, T),
    # ...
    schedule: Callable[[int], Array]  # schedule(n) -> sigmas [n + 1], its usual one for sampling
    judged: Scales | None = None  # of the quantity whose error the loss is; None: what the network predicts
    beside: losses.Beside | None = None  # an error that the loss has besides

    def denoiser(self, apply: Callable[..., Array], params: Params) -> Partial:
        """The `Denoiser` of the network `apply(params, x [B, T, D], c_noise)`; its leaves are `params`."""
        return preconditioned(apply, params, self.preconditioning)

    def error(
        self,
        apply: Callable[..., Array],
        params: Params,
        x0: Array,
        sigma: Array,
        noise: Array,
        weight: Array | None = None,
    ) -> tuple[Array, Metrics]:
        """The `loss` of given levels and noise: see `losses.prediction_error`."""
        return losses.prediction_error(
            apply,
            params,
            x0,
            sigma,
            noise,
            self.preconditioning,
            weight=weight,
            judged=self.judged,
            beside=self.beside,
        )

    def loss(
        self,
        key: Array,
        apply: Callable[..., Array],
        params: Params,
        x0: Array,
        *,
        sigma: Array | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, Metrics]:
        """Mean squared error of what is predicted, or of what is `judged`, at drawn levels or at `sigma`.

        `x0` is `[B, ...]`; `sigma` and `weight` are prefixes of it (`[B]`, `[B, T]`, `[B, T, D]`). Without
        `sigma`, every row has one drawn level; for a level per time step, as in Diffusion Forcing (arXiv
        2407.01392), draw it: `levels(key, x0.shape[:2], x0.dtype)`. Entries at level 0 are known and
        contribute nothing; the mean is over all entries. The key is consumed.
        """
        if sigma is None:
            keys = named_keys(key, "level", "noise")
            key, sigma = keys["noise"], self.levels(keys["level"], x0.shape[0], x0.dtype)
        noise = jax.random.normal(key, x0.shape, x0.dtype)
        return self.error(apply, params, x0, sigma, noise, weight)

    def in_space(self, space: Space) -> "Formulation":
        """The same network, whose loss sees the error of another quantity (arXiv 2602.22801, section 4.1).

        All are affine in `x0`, so only the weight of a level differs: 1 for x0, `1 / sigma^2` for eps,
        `(1 + sigma^2) / sigma^2` for v, `1 / sigma^4` for the score of `x = x0 + sigma eps`. "own" is what
        the network predicts.
        """
        return (
            self if space == "own" else replace(self, name=f"{self.name}_in_{space}", judged=_SCALES[space])
        )


def _alpha(s: Array) -> Array:
    return jax.lax.rsqrt(1 + jnp.square(s))


def _eps_scales(s: Array) -> tuple[Array, Array, Array]:
    return _alpha(s), jnp.ones_like(s), -s  # x0 = x - sigma eps


def _x0_scales(s: Array) -> tuple[Array, Array, Array]:
    noisy = (s > 0).astype(s.dtype)
    return _alpha(s), 1 - noisy, noisy


def _v_scales(s: Array) -> tuple[Array, Array, Array]:
    alpha = _alpha(s)  # v = alpha eps - alpha sigma x0, so x0 = alpha (alpha x) - alpha sigma v
    return alpha, jnp.square(alpha), -s * alpha


def _flow_scales(s: Array) -> tuple[Array, Array, Array]:
    left = 1 / (1 + s)  # 1 - t; u = eps - x0, so x0 = x_t - t u
    return left, left, -s * left


def _to_data_scales(s: Array) -> tuple[Array, Array, Array]:
    left = 1 / (1 + s)  # v = x0 - eps = -u
    return left, left, s * left


def _score_scales(s: Array) -> tuple[Array, Array, Array]:
    return _alpha(s), jnp.ones_like(s), jnp.square(s)  # x0 = x + sigma^2 score


_SCALES = {"eps": _eps_scales, "x0": _x0_scales, "v": _v_scales, "score": _score_scales}


def to_x0(kind: Prediction | Literal["score"], value: Array, x: Array, sigma: Array) -> Array:
    """`x0` from the `value` of its `kind` at `x = x0 + sigma eps`; `sigma` is a prefix of both, above 0."""
    _, c_skip, c_out = _SCALES[kind](expand(sigma, x))
    return c_skip * x + c_out * value


def from_x0(kind: Prediction | Literal["score"], x0: Array, x: Array, sigma: Array) -> Array:
    """The inverse of `to_x0`: eps, v or the score that `x0` says at `x`."""
    _, c_skip, c_out = _SCALES[kind](expand(sigma, x))
    return (x0 - c_skip * x) / c_out


def _uniform_times(key: Array, shape: Shape, dtype: Any, *, process: Process) -> Array:
    t = jax.random.uniform(key, as_shape(shape), dtype, process.first, process.last)
    return process.level(t)


def _drawn(key: Array, shape: Shape, dtype: Any, *, steps: int) -> Array:
    levels = schedules.ddpm_cosine(steps)[:-1].astype(dtype)
    return levels[jax.random.randint(key, as_shape(shape), 0, steps)]


def _spaced(n: int, *, steps: int) -> Array:
    if not 1 <= n <= steps:
        raise UserError(f"{n} sampling steps of a network trained at {steps} levels: take 1 to {steps}")
    levels = schedules.ddpm_cosine(steps)
    kept = [round(k * (steps - 1) / max(n - 1, 1)) for k in range(n)]
    return levels[jnp.array([*kept, steps])]


def _bound(function: Callable, **settings: Any) -> Bound:
    return Bound(function, tuple(sorted(settings.items())))


def edm(p_mean: float = -1.2, p_std: float = 1.2, sigma_data: float = 1.0) -> Formulation:
    """EDM (arXiv 2206.00364): its loss is `losses.denoising`, `ln sigma ~ N(p_mean, p_std^2)`."""
    levels = _bound(losses.log_normal_levels, p_mean=p_mean, p_std=p_std)
    return Formulation("edm", edm_preconditioning(sigma_data), levels, schedules.karras)


def vp(predicts: Prediction, process: Process = COSINE) -> Formulation:
    """VP diffusion in continuous time: `x_t = alpha (x0 + sigma eps)`, `alpha = (1 + sigma^2)^(-1/2)`.

    The network sees `x_t` and `t`, and predicts `eps` (arXiv 2006.11239), `x0`, or `v = alpha eps -
    alpha sigma x0` (arXiv 2202.00512); `t` is uniform in training, `process` COSINE or LINEAR.
    """
    schedule = schedules.vp_linear if process is LINEAR else schedules.vp_cosine
    name = f"vp_linear_{predicts}" if process is LINEAR else f"vp_{predicts}"
    preconditioning = Preconditioning(_SCALES[predicts], process.time)
    return Formulation(name, preconditioning, _bound(_uniform_times, process=process), schedule)


def flow(process: Process = FLOW) -> Formulation:
    """Rectified flow (arXiv 2209.03003): the network sees `x_t`, `t` and predicts `u = eps - x0`.

    `process` says which way time runs and where it begins: FLOW from data at 0 to level 999 at .999; TO_DATA
    from pure noise at 0 to data at 1, and the network predicts `v = x0 - eps`.
    """
    ahead = process is TO_DATA
    scales, schedule = (_to_data_scales, schedules.flow_to_data) if ahead else (_flow_scales, schedules.flow)
    name, levels = "flow_to_data" if ahead else "flow", _bound(_uniform_times, process=process)
    return Formulation(name, Preconditioning(scales, process.time), levels, schedule)


def ddpm(predicts: Prediction, steps: int = 20) -> Formulation:
    """DDPM with `steps` discrete levels of the clipped cosine schedule, drawn uniformly.

    As in Diffuser (arXiv 2205.09991), with `samplers.ddpm`. Its `schedule(n)` takes `n <= steps` of the
    trained levels, evenly in their number, and raises `UserError` for more.
    """
    preconditioning = Preconditioning(_SCALES[predicts], COSINE.time)
    levels, schedule = _bound(_drawn, steps=steps), _bound(_spaced, steps=steps)
    return Formulation(f"ddpm_{predicts}", preconditioning, levels, schedule)


def _up_to(key: Array, shape: Shape, dtype: Any, *, highest: float) -> Array:
    share = jax.random.uniform(key, as_shape(shape), dtype, 1e-3, 1.0)
    return highest * share


def low(highest: float) -> Formulation:
    """`x0` predicted at low levels alone, uniform up to `highest`: of truncated chains (arXiv 2411.15139).

    The network sees `x_t` and `t` as that of `vp("x0")`. Its schedule is Karras's from `highest` on.
    """
    schedule = _bound(schedules.karras, sigma_max=highest, sigma_min=highest / 4)
    levels = _bound(_up_to, highest=highest)
    return Formulation("low_x0", Preconditioning(_x0_scales, COSINE.time), levels, schedule)


FORMULATIONS: dict[str, Formulation] = {
    f.name: f
    for f in [
        edm(),
        *(vp(predicts) for predicts in ("eps", "x0", "v")),
        *(vp(predicts, LINEAR) for predicts in ("eps", "x0", "v")),
        flow(),
        *(ddpm(predicts) for predicts in ("eps", "x0")),
    ]
}


def formulation(name: str) -> Formulation:
    """One of `FORMULATIONS`; `UserError` with the nearest names for any other."""
    if name not in FORMULATIONS:
        near = difflib.get_close_matches(name, FORMULATIONS, n=3) or list(FORMULATIONS)
        raise UserError(f"unknown formulation {name!r}: choose {' or '.join(near)}")
    return FORMULATIONS[name]
