"""What planners learn: denoisers of plans with known entries, critics of plans, and how plans are drawn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import samplers
from jdp.diffusion.diffuser import DiffuserState, adam, begin, descend
from jdp.diffusion.formulations import formulation
from jdp.diffusion.guidance import hold, value_guided
from jdp.diffusion.warm import warm_start
from jdp.errors import UserError
from jdp.networks import NetworkConfig, ValueNetworkConfig, make, make_value
from jdp.networks.conditional_mlp import conditioned
from jdp.types import Bound, Denoiser, Metrics, Params, bind, named_keys


@dataclass(frozen=True)
class ModelConfig:
    """A denoiser of plans and its training."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    formulation: str = "edm"
    """What the network predicts, at which levels: edm, vp_eps, vp_x0, vp_v, flow, ddpm_x0, ..."""
    learning_rate: float = 1e-3
    """Peak: linear warm-up over the first tenth, then a cosine to 0."""
    steps: int = 10_000
    """Gradient steps over which the learning rate falls; set to the experiment's updates."""
    ema: float = 0.995
    """Decay of the averaged weights that plans are drawn from."""


@dataclass(frozen=True)
class SamplingConfig:
    """How a plan is drawn."""

    sampler: str = "euler"
    """euler (DDIM), heun, dpmpp_2m, dpmpp_2m_sde, ddpm, ..."""
    steps: int = 10
    """Network calls of a plan from nothing."""
    warm_steps: int = 4
    """The last levels that a plan from the previous one, re-noised, goes through; 0: always from nothing."""
    sigma_max: float | None = 20.0
    """Noise of a plan from nothing; none: the whole schedule of the formulation."""
    temperature: float = 1.0
    """Scales the noise that a plan begins with."""

    def __post_init__(self) -> None:
        if self.sampler not in samplers.SAMPLERS:
            raise UserError(f"no sampler {self.sampler!r}: choose one of {', '.join(samplers.SAMPLERS)}")
        if self.steps < 2 or not 0 <= self.warm_steps <= self.steps:
            raise UserError(
                "a plan needs steps >= 2 and 0 <= warm_steps <= steps, "
                f"not steps {self.steps} and warm_steps {self.warm_steps}"
            )


class Model(NamedTuple):
    """A trainable denoiser of plans `[B, T, D]` under a condition `[B, C]`, as pure functions."""

    init: Callable[[Array, Array, Array], DiffuserState]  # init(key, x0, condition)
    update: Callable[..., tuple[DiffuserState, Metrics]]
    # update(key, state, x0, condition, known, weight): entries where `known` (bool, broadcasts to x0) are
    # shown without noise and cost nothing; `weight` (broadcasts to x0) multiplies the loss
    denoiser: Callable[[DiffuserState, Array], Denoiser]  # denoiser(state, condition), of averaged weights


def _shown(x: Array, known: Array, condition: Array) -> tuple[Array, Array]:
    """What a network is shown: a flag beside every entry, and the known ends of the plan as a condition.

    Convolutions see a few rows: without the ends as a condition plans jump from the present to their row 1.
    """
    flags = jnp.broadcast_to(known, x.shape).astype(x.dtype)
    ends = (flags * x)[:, jnp.array([0, -1])].reshape(x.shape[0], -1)
    return jnp.concatenate([x, flags], axis=-1), jnp.concatenate([condition, ends], axis=-1)


def _at_one_level(params: Params, x: Array, c_noise: Array, condition: Array, *, apply: Callable) -> Array:
    # One embedded level for all noisy entries; a level for each would cost half as much again.
    level = c_noise.reshape(x.shape[0], -1).max(-1)
    wide = c_noise.reshape(c_noise.shape + (1,) * (x.ndim - c_noise.ndim))
    shown, given = _shown(x, wide < level[:, None, None], condition)
    return apply(params, shown, level, given)[..., : x.shape[-1]]


@lru_cache(maxsize=64)
def model(config: ModelConfig) -> Model:
    """The denoiser of `config`; equal settings are the same functions.

    Raises:
        UserError: if there is no such formulation.
    """
    net, form, optimiser = make(config.network), formulation(config.formulation), adam(config)
    apply = conditioned(Bound(_at_one_level, (("apply", net.apply),)))

    def init(key: Array, x0: Array, condition: Array) -> DiffuserState:
        shown, given = _shown(x0, jnp.ones(x0.shape, bool), condition)
        return begin(optimiser, net.init(key, shown, jnp.zeros(x0.shape[:1], x0.dtype), given))

    def update(key: Array, state: DiffuserState, x0: Array, condition: Array, known: Array, weight: Array):
        keys = named_keys(key, "level", "noise")
        level = form.levels(keys["level"], x0.shape[0], x0.dtype)
        sigma = jnp.where(jnp.broadcast_to(known, x0.shape), 0.0, level[:, None, None])

        def loss(params: Params) -> tuple[Array, Metrics]:
            both = (params, condition)
            weights = jnp.broadcast_to(weight, x0.shape)
            return form.loss(keys["noise"], apply, both, x0, sigma=sigma, weight=weights)

        return descend(optimiser, state, loss, config.ema)

    def denoiser(state: DiffuserState, condition: Array) -> Denoiser:
        return form.denoiser(apply, (state.ema, condition))

    return Model(init, update, denoiser)


class Critic(NamedTuple):
    """A trainable judge of (noisy) plans, as pure functions."""

    init: Callable[[Array, Array, Array], DiffuserState]  # init(key, x0 [B, T, D], condition [B, C])
    update: Callable[..., tuple[DiffuserState, Metrics]]
    # update(key, state, x0, condition, known, target [B]), regression
    value: Callable[[DiffuserState, Array], Partial]  # value(state, condition) -> (x, sigma) -> [B]


@dataclass(frozen=True)
class CriticConfig:
    """A judge of plans and its training."""

    network: ValueNetworkConfig = field(default_factory=ValueNetworkConfig)
    learning_rate: float = 1e-3
    """Peak of the same schedule as the denoiser's."""
    steps: int = 10_000
    """As of the denoiser."""
    ema: float = 0.995
    """Decay of the averaged weights."""
    noisy: bool = True
    """Whether it learns to judge plans under noise, as guidance at the noised point needs."""


CLEAN = 0.02  # the level at which plans without noise are judged: near 0, and within what training shows


def _judge(params: Params, condition: Array, x: Array, sigma: Array, *, apply: Callable) -> Array:
    level = jnp.broadcast_to(sigma, (x.shape[0], *sigma.shape[1:])).reshape(x.shape[0], -1).max(-1)
    level = jnp.maximum(level, CLEAN)
    scale = jax.lax.rsqrt(1 + jnp.square(level))
    return apply(params, scale[:, None, None] * x, jnp.log(level) / 4, condition)


@lru_cache(maxsize=64)
def critic(config: CriticConfig) -> Critic:
    """The judge of `config`: regression of a number on plans, at noise levels from none to pure noise."""
    net, optimiser, form = make_value(config.network), adam(config), formulation("edm")

    def init(key: Array, x0: Array, condition: Array) -> DiffuserState:
        return begin(optimiser, net.init(key, x0, jnp.zeros(x0.shape[:1], x0.dtype), condition))

    def update(key: Array, state: DiffuserState, x0: Array, condition: Array, known: Array, target: Array):
        keys = named_keys(key, "level", "clean", "noise")
        level = form.levels(keys["level"], x0.shape[0], x0.dtype)
        clean = jax.random.bernoulli(keys["clean"], 0.5 if config.noisy else 1.0, level.shape)
        level = jnp.where(clean, CLEAN, level)
        noise = level[:, None, None] * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
        x = x0 + jnp.where(jnp.broadcast_to(known, x0.shape), 0.0, noise)

        def loss(params: Params) -> tuple[Array, Metrics]:
            error = jnp.mean(jnp.square(_judge(params, condition, x, level, apply=net.apply) - target))
            return error, {"critic_loss": error}

        return descend(optimiser, state, loss, config.ema)

    def value(state: DiffuserState, condition: Array) -> Partial:
        return bind(_judge, state.ema, condition, apply=net.apply)

    return Critic(init, update, value)


class Previous(NamedTuple):
    """The carry of a planner that draws one trajectory: its last plan, normalised, for the warm start."""

    plan: Array  # [B, T, D]
    planned: Array  # [] bool, False before the first plan


def nothing_planned(batch: int, horizon: int, channels: int) -> Previous:
    """The carry before the first plan."""
    return Previous(jnp.zeros((batch, horizon, channels)), jnp.zeros((), bool))


def shifted(plan: Array, rows: float) -> Array:
    """`[B, T, D]`, the plan as seen `rows` rows later, interpolated; its last row stands for what follows."""
    length = plan.shape[1]
    at = jnp.minimum(jnp.arange(length, dtype=plan.dtype) + rows, length - 1)
    left = jnp.minimum(jnp.floor(at).astype(jnp.int32), length - 2) if length > 1 else jnp.zeros(1, jnp.int32)
    share = (at - left.astype(plan.dtype))[None, :, None]
    following = jnp.minimum(left + 1, length - 1)
    return (1 - share) * plan[:, left] + share * plan[:, following]


def draw_plan(
    key: Array,
    denoiser: Denoiser,
    known: Array,
    mask: Array,
    previous: Previous,
    config: SamplingConfig,
    schedule: Array,
) -> Array:
    """`[B, T, D]`, a draw given the entries `known` where `mask`: cold, or warm from the shifted `previous`.

    `previous.plan` is `[B, T, D]` (repeated for candidates). The warm start enters `schedule` `[n + 1]` at
    its last `warm_steps` levels; at the highest level it is the cold start of the same key.
    """
    keys = named_keys(key, "start", "sampler")
    sampler = samplers.SAMPLERS[config.sampler]
    held = hold(denoiser, known, mask)

    def cold(_: None) -> Array:
        x = config.temperature * schedule[0] * jax.random.normal(keys["start"], known.shape, known.dtype)
        return sampler(held, x, schedule, key=keys["sampler"])

    def warm(_: None) -> Array:
        levels = schedule[-(config.warm_steps + 1) :]
        x = warm_start(keys["start"], previous.plan, levels[0], schedule[0], temperature=config.temperature)
        return sampler(held, x, levels, key=keys["sampler"])

    if config.warm_steps == 0:
        return cold(None)
    return jax.lax.cond(previous.planned, warm, cold, None)


def plan_schedule(config: SamplingConfig, name: str) -> Array:
    """`[steps + 1]`, the levels of a plan from nothing."""
    from jdp.diffusion.schedules import karras

    if config.sigma_max is None:
        return formulation(name).schedule(config.steps)
    return karras(config.steps, sigma_min=0.02, sigma_max=config.sigma_max)


def candidates_of(x: Any, count: int) -> Any:
    """Every row of the leaves `[B, ...]` `count` times: `[B * count, ...]`, a row's copies side by side."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), x)


def best_of(x: Array, score: Array, count: int) -> tuple[Array, Array]:
    """Of every `count` candidates `[B * count, ...]` the one of the highest `score` `[B * count]`, and it."""
    score = score.reshape(-1, count)
    best = jnp.argmax(score, axis=1)
    rows = jnp.arange(score.shape[0])
    return x.reshape((-1, count, *x.shape[1:]))[rows, best], score[rows, best]


class Steering(NamedTuple):
    """How a value steers the drawing of plans (see `jdp.diffusion.guidance.value_guided`)."""

    strength: float  # 0: it only chooses
    point: Literal["denoised", "noised"] = "denoised"
    steps: int = 1


def draw_best(
    key: Array,
    denoiser: Denoiser,
    value: Partial | None,
    known: Array,
    mask: Array,
    previous: Previous,
    config: SamplingConfig,
    schedule: Array,
    steering: Steering,
    count: int,
) -> tuple[Array, Array]:
    """`([B, T, D], value [B])`: of `count` draws (`draw_plan`), steered by `value`, the one it values most.

    `known`, `mask` and `previous` are of B plans; `denoiser` and `value` of `B * count`. Without a value the
    first draw is taken, of value 0.
    """
    known, mask, plan = candidates_of((known, mask, previous.plan), count)
    if value is not None and steering.strength:
        strength, point, steps = steering
        denoiser = value_guided(denoiser, value, strength, point=point, steps=steps)
    x0 = draw_plan(key, denoiser, known, mask, Previous(plan, previous.planned), config, schedule)
    score = jnp.zeros(x0.shape[0]) if value is None else value(x0, jnp.zeros(x0.shape[:1]))
    return best_of(x0, score, count)
