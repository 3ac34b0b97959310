"""Training of a cascade over scales of time: an EDM denoiser for each scale (PCDM, arXiv 2501.06999)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.draws import WindowDraw, WindowRows
from jdp.diffusion import haar, losses
from jdp.diffusion.cascade import Cascade, given_coarser, spreads
from jdp.diffusion.denoiser import edm, edm_preconditioning
from jdp.learning.averaged import Averaged, begin, descend
from jdp.learning.diffuser import DiffuserConfig
from jdp.learning.optimiser import adam
from jdp.networks import NetworkConfig, Precision, make
from jdp.networks.conditional_mlp import conditioned
from jdp.types import Bound, Learner, Metrics, Params, bind, named_keys

LOOKED_AT = 4096  # windows that spreads are taken of


@dataclass(frozen=True)
class SpreadDraw(WindowDraw):
    """Windows, of which `init` sees many: it takes the spreads of their scales."""

    def view(self, rows: WindowRows) -> Array:
        """`[W, length, D]`, windows from all over the dataset."""
        starts, last = np.asarray(rows.starts), np.asarray(rows.last)
        some = np.linspace(0, len(starts) - 1, min(LOOKED_AT, len(starts))).astype(int)
        return jnp.asarray(rows.rows)[self.steps(jnp.asarray(starts[some]), jnp.asarray(last[some]))]


class CascadeState(NamedTuple):
    """What a cascade has learned."""

    trained: Averaged  # of a tuple of parameters, the coarse scale's first
    stds: Array  # [L + 1, D], units of the scales


class CascadeDiffuser(NamedTuple):
    """A cascade that learns."""

    learner: Learner
    cascade: Callable[[CascadeState], Cascade]


def _beside(params: Params, x: Array, c_noise: Array, known: Array, *, apply: Callable[..., Array]) -> Array:
    """The network sees what is known as channels beside the noisy ones."""
    return apply(params, jnp.concatenate([x, known], axis=-1), c_noise)[..., : x.shape[-1]]


def _detail(params: Params, x: Array, sigma: Array, known: Array, *, apply: Callable[..., Array]) -> Array:
    return edm(conditioned(apply), (params, known))(x, sigma)


def seen(x: Array, levels: int, stds: Array) -> list[tuple[Array, Array | None]]:
    """The scales of `x` `[B, T, D]` in their units `stds` `[L + 1, D]`, each with what is known before it."""
    parts = given_coarser(x, levels)
    return [(part / jnp.broadcast_to(stds[i], part.shape), before) for i, (part, before) in enumerate(parts)]


@lru_cache(maxsize=32)  # equal settings are the same functions, so they compile once
def cascade_diffuser(
    network: NetworkConfig,
    config: DiffuserConfig,
    horizon: int,
    levels: int,
    precision: Precision = "float32",
) -> CascadeDiffuser:
    """Trains denoisers of the coarse rows and of `levels` scales of details of windows `[B, horizon, D]`.

    `init(key, windows)` takes the units of the scales of many windows; the loss is EDM's, the mean over all
    entries of all scales, each scale at a level of its own. Each has a network of its own, as large as
    `network`; the authors train the bound of the likelihood instead, with a learned schedule of noise.

    Raises:
        UserError: unless `horizon` divides by `2^levels`.
    """
    haar.check_length(horizon, levels)
    net, optimiser = make(network, precision), adam(config)
    beside = Bound(_beside, (("apply", net.apply),))

    def init(key: Array, windows: Array) -> CascadeState:
        stds = spreads(haar.analysis(windows, levels))
        params = []
        for own, (part, before) in zip(
            jax.random.split(key, levels + 1), seen(windows[:1], levels, stds), strict=True
        ):
            shown = part if before is None else jnp.concatenate([part, before], axis=-1)
            params.append(net.init(own, shown, jnp.zeros(1, part.dtype)))
        return CascadeState(begin(optimiser, tuple(params)), stds)

    def update(key: Array, state: CascadeState, x0: Array) -> tuple[CascadeState, Metrics]:
        def loss(params: tuple[Params, ...]) -> tuple[Array, Metrics]:
            total = jnp.zeros((), x0.dtype)
            keys = jax.random.split(key, levels + 1)
            for own, of, (part, before) in zip(keys, params, seen(x0, levels, state.stds), strict=True):
                apply, given = (net.apply, of) if before is None else (conditioned(beside), (of, before))
                names = named_keys(own, "level", "noise")
                sigma = losses.log_normal_levels(
                    names["level"], x0.shape[0], x0.dtype, p_mean=config.p_mean, p_std=config.p_std
                )
                error, _ = losses.prediction_at(
                    names["noise"], apply, given, part, sigma, edm_preconditioning()
                )
                total = total + error * (part.shape[1] / horizon)
            return total, {"loss": total}

        trained, metrics = descend(optimiser, state.trained, loss, config.ema)
        return CascadeState(trained, state.stds), metrics

    def cascade(state: CascadeState) -> Cascade:
        coarse, *rest = state.trained.ema
        details = tuple(bind(_detail, params, apply=beside) for params in rest)
        return Cascade(edm(net.apply, coarse), details, state.stds)

    return CascadeDiffuser(Learner(init, update, SpreadDraw(horizon)), cascade)
