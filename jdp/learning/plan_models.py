"""What plans are drawn from: denoisers of plans with known entries, and flow maps of the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import flow_maps
from jdp.diffusion.formulations import Space, formulation
from jdp.diffusion.schedules import karras
from jdp.errors import UserError, check_choices, check_settings
from jdp.learning.averaged import Averaged, begin, check_accumulate, descend
from jdp.learning.optimiser import adam
from jdp.networks import NetworkConfig, Precision, make
from jdp.networks.conditional_mlp import conditioned
from jdp.types import Bound, Denoiser, Metrics, Params, named_keys


@dataclass(frozen=True)
class ModelConfig:
    """A denoiser of plans and its training."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    formulation: str = "edm"
    """What the network predicts, at which levels: edm, vp_eps, vp_x0, vp_v, flow, ddpm_x0, ...; or the
    flow maps consistency (with sampling.sampler consistency) and shortcut (with flow_map), for few calls."""
    loss_space: Space = "own"
    """Whose error a denoiser's loss is: what the network predicts (own), or x0, eps, v or the score."""
    learning_rate: float = 1e-3
    """Peak: linear warm-up over the first tenth, then a cosine to 0."""
    steps: int = 10_000
    """Gradient steps over which the learning rate falls; set to the experiment's updates."""
    ema: float = 0.995
    """Decay of the averaged weights that plans are drawn from."""
    precision: Precision = "float32"
    """Of the network's arithmetic; weights, optimiser, average and loss are float32."""
    accumulate: int = 1
    """Micro-batches that a batch is computed in, of denoisers (`jdp.learning.averaged.mean_gradient`)."""
    octaves: int = 0
    """Sines and cosines of every entry that are shown beside it, at frequencies of .5, 1, 2, ... waves a
    standard deviation (as in Kingma et al. 2021, arXiv 2107.00630): by them small networks learn soon where
    the walls of a large maze are."""

    def __post_init__(self) -> None:
        check_settings("ModelConfig", octaves=(self.octaves, 0, 16))
        check_accumulate(self.accumulate)
        check_choices(self)
        if self.loss_space != "own" and self.formulation in _KINDS:
            raise UserError(
                f"{self.formulation} models have a loss of their own, in no space: leave loss_space out, or "
                "choose another formulation"
            )
        if self.accumulate > 1 and self.formulation in _KINDS:
            raise UserError(
                f"{self.formulation} models do not accumulate, only denoisers do: leave --accumulate out, or "
                "choose another formulation"
            )


class Model(NamedTuple):
    """A trainable denoiser of plans `[B, T, D]` under a condition `[B, C]`, as pure functions."""

    init: Callable[[Array, Array, Array], Averaged]  # init(key, x0, condition)
    update: Callable[..., tuple[Averaged, Metrics]]
    # update(key, state, x0, condition, known, weight): entries where `known` (bool, broadcasts to x0) are
    # shown without noise and cost nothing; `weight` (broadcasts to x0) multiplies the loss
    denoiser: Callable[[Averaged, Array], Denoiser]  # denoiser(state, condition), of averaged weights
    formulation: str = "edm"  # by which its plans are drawn


def _with_waves(x: Array, octaves: int) -> Array:
    """`[B, T, D (1 + 2 octaves)]`, beside the entries their sines and cosines."""
    angles = [jnp.pi * 2.0**k * x for k in range(octaves)]
    return jnp.concatenate([x, *(wave(angle) for angle in angles for wave in (jnp.sin, jnp.cos))], axis=-1)


def _shown(x: Array, known: Array, condition: Array, octaves: int) -> tuple[Array, Array]:
    """What a network is shown: a flag beside every entry, and the known ends of the plan as a condition.

    Convolutions see a few rows: without the ends as a condition plans jump from the present to their row 1.
    """
    flags, waves = jnp.broadcast_to(known, x.shape).astype(x.dtype), _with_waves(x, octaves)
    ends = (jnp.tile(flags, 1 + 2 * octaves) * waves)[:, jnp.array([0, -1])].reshape(x.shape[0], -1)
    return jnp.concatenate([waves, flags], axis=-1), jnp.concatenate([condition, ends], axis=-1)


def _at_one_level(
    params: Params, x: Array, c_noise: Array, condition: Array, *, apply: Callable, octaves: int
) -> Array:
    if c_noise.ndim == 2:
        # A level per step [B, T], known by its shape: all are embedded. They say what is clean, so nothing is
        # flagged.
        shown, given = _shown(x, jnp.zeros(x.shape, bool), condition, octaves)
        return apply(params, shown, c_noise, given)[..., : x.shape[-1]]
    # Of [B] and [B, T, D], as `hold` makes them, all noisy entries have one level: it is embedded once, and
    # entries below it are flagged as known. A level for each would cost half as much again.
    level = c_noise.reshape(x.shape[0], -1).max(-1)
    wide = c_noise.reshape(c_noise.shape + (1,) * (x.ndim - c_noise.ndim))
    shown, given = _shown(x, wide < level[:, None, None], condition, octaves)
    return apply(params, shown, level, given)[..., : x.shape[-1]]


class _Learning(NamedTuple):
    """What formulations differ in: initial parameters, the loss, and the function that plans come from."""

    init: Callable[[Callable[[Array], Params], Array], Params]  # init(network's init(key), key)
    draw: Callable[[Array, Array], Any]  # draw(key, x0): what is random in the loss, one row for each of x0
    loss: Callable[..., tuple[Array, Metrics]]  # loss(drawn, params, ema, x0, condition, known, weight)
    denoiser: Callable[[Params, Array], Any]  # denoiser(averaged params, condition): a denoiser or flow map


def _denoising(config: ModelConfig, apply: Callable) -> _Learning:
    form = formulation(config.formulation).in_space(config.loss_space)

    def draw(key: Array, x0: Array) -> tuple[Array, Array]:
        keys = named_keys(key, "level", "noise")
        levels = form.levels(keys["level"], x0.shape[0], x0.dtype)
        return levels, jax.random.normal(keys["noise"], x0.shape, x0.dtype)

    def loss(
        drawn: tuple[Array, Array],
        params: Params,
        ema: Params,
        x0: Array,
        condition: Array,
        known: Array,
        weight: Array,
    ):
        level, noise = drawn
        sigma = jnp.where(known, 0.0, level[:, None, None])
        return form.error(apply, (params, condition), x0, sigma, noise, weight)

    return _Learning(lambda init, key: init(key), draw, loss, lambda ema, c: form.denoiser(apply, (ema, c)))


def _no_rows(key: Array, x0: Array) -> Array:
    """For losses that draw within: their rows are not alike, so they are computed all at once."""
    del x0
    return key


def _shortcut(config: ModelConfig, apply: Callable) -> _Learning:
    def loss(
        key: Array, params: Params, ema: Params, x0: Array, condition: Array, known: Array, weight: Array
    ):
        return flow_maps.shortcut_matching(
            key, unconditioned(apply), params, x0, target=ema, condition=condition, known=known, weight=weight
        )

    def denoiser(ema: Params, condition: Array) -> Partial:
        return flow_maps.shortcut(unconditioned(apply), ema, condition=condition)

    return _Learning(lambda init, key: init(key), _no_rows, loss, denoiser)


def _consistency(config: ModelConfig, apply: Callable) -> _Learning:
    sigmas = karras(CONSISTENCY_LEVELS)

    def init(network: Callable[[Array], Params], key: Array) -> Params:
        keys = named_keys(key, "teacher", "student")
        return {name: network(k) for name, k in keys.items()}

    def loss(
        key: Array, params: Params, ema: Params, x0: Array, condition: Array, known: Array, weight: Array
    ):
        keys = named_keys(key, "level", "teacher", "student")
        form = formulation("edm")
        sigma = jnp.where(known, 0.0, form.levels(keys["level"], x0.shape[0], x0.dtype)[:, None, None])
        taught, _ = form.loss(
            keys["teacher"], apply, (params["teacher"], condition), x0, sigma=sigma, weight=weight
        )
        distilled, _ = flow_maps.consistency_distillation(
            keys["student"],
            apply,
            (params["student"], condition),
            x0,
            target=(ema["student"], condition),
            teacher=form.denoiser(apply, (ema["teacher"], condition)),
            sigmas=sigmas,
            known=known,
            weight=weight,
        )
        return taught + distilled, {"loss": taught + distilled, "distillation_loss": distilled}

    return _Learning(init, _no_rows, loss, lambda ema, c: flow_maps.consistency(apply, (ema["student"], c)))


def unconditioned(apply: Callable) -> Bound:
    """`apply((params, condition), ...)` as `apply(params, ..., condition)`."""
    return Bound(_conditioned_last, (("apply", apply),))


def _conditioned_last(
    params: Params, x: Array, c_noise: Array, condition: Array, *, apply: Callable
) -> Array:
    return apply((params, condition), x, c_noise)


CONSISTENCY_LEVELS = 18  # of the teacher's steps, as in arXiv 2303.01469 on small images
_KINDS = {"shortcut": _shortcut, "consistency": _consistency}


@lru_cache(maxsize=64)
def model(config: ModelConfig) -> Model:
    """The denoiser of `config`, or a consistency or shortcut model; equal settings are the same functions.

    A consistency model learns from a denoiser that is trained beside it (EDM), with its averaged weights as
    the teacher; plans are then drawn by `sampler="consistency"`, and those of a shortcut model by
    `sampler="flow_map"`.

    Raises:
        UserError: if there is no such formulation.
    """
    net, optimiser = make(config.network, config.precision), adam(config)
    apply = conditioned(Bound(_at_one_level, (("apply", net.apply), ("octaves", config.octaves))))
    kind = _KINDS.get(config.formulation, _denoising)(config, apply)
    step_size = 1 if config.formulation == "shortcut" else 0  # a column of the condition

    def init(key: Array, x0: Array, condition: Array) -> Averaged:
        wide = jnp.concatenate([condition, jnp.zeros((x0.shape[0], step_size), x0.dtype)], axis=-1)
        shown, given = _shown(x0, jnp.ones(x0.shape, bool), wide, config.octaves)
        levels = jnp.zeros(x0.shape[:1], x0.dtype)
        return begin(optimiser, kind.init(lambda k: net.init(k, shown, levels, given), key))

    def update(key: Array, state: Averaged, x0: Array, condition: Array, known: Array, weight: Array):
        known, weight = (jnp.broadcast_to(x, x0.shape) for x in (known, weight))

        def loss(params: Params, drawn: Any, *rows: Array) -> tuple[Array, Metrics]:
            return kind.loss(drawn, params, state.ema, *rows)

        rows = (kind.draw(key, x0), x0, condition, known, weight)
        return descend(optimiser, state, loss, config.ema, rows, config.accumulate)

    def denoiser(state: Averaged, condition: Array) -> Denoiser:
        return kind.denoiser(state.ema, condition)

    return Model(init, update, denoiser, config.formulation)
