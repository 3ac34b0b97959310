"""How plans are drawn and judged: samplers with known entries, warm starts, candidates, critics."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import samplers
from jdp.diffusion.flow_maps import hold_map
from jdp.diffusion.formulations import formulation
from jdp.diffusion.guidance import hold, value_guided
from jdp.diffusion.schedules import flow, karras
from jdp.diffusion.warm import warm_start
from jdp.errors import UserError
from jdp.learning.averaged import Averaged, begin, check_accumulate, descend
from jdp.learning.optimiser import adam
from jdp.networks import Precision, ValueNetworkConfig, make_value
from jdp.types import Denoiser, Metrics, Params, bind, named_keys


def staircase(denoiser: Denoiser, x: Array, sigmas: Array, *, key: Array | None = None) -> Array:
    """For pictures: Euler from the first row of `x` `[B, ...]`, where row b stops at `sigmas[b]`.

    So a batch of equal observations shows how one plan comes out of noise, whatever the planner.
    """
    del key
    chain = samplers.euler(denoiser, jnp.broadcast_to(x[:1], x.shape), sigmas, trace=True)
    rows = jnp.arange(x.shape[0])
    return chain[jnp.minimum(rows, chain.shape[0] - 1), rows]


LEAST = 0.02  # the last level above 0, of standardised plans
_FLOW_SAMPLERS = {"consistency": samplers.consistency, "flow_map": samplers.flow_map}
SAMPLERS = samplers.SAMPLERS | _FLOW_SAMPLERS | {"staircase": staircase}


@dataclass(frozen=True)
class SamplingConfig:
    """How a plan is drawn."""

    sampler: str = "euler"
    """euler (DDIM), heun, dpmpp_2m, dpmpp_2m_sde, ddpm, ...; consistency and flow_map for those models."""
    steps: int = 10
    """Network calls of a plan from nothing."""
    warm_steps: int = 4
    """The last levels that a plan from the previous one, re-noised, goes through; 0: always from nothing."""
    sigma_max: float | None = 20.0
    """Noise of a plan from nothing; none: the whole schedule of the formulation."""
    temperature: float = 1.0
    """Scales the noise that a plan begins with."""

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UserError(f"no sampler {self.sampler!r}: choose one of {', '.join(SAMPLERS)}")
        if self.sigma_max is not None and self.sigma_max <= LEAST:
            raise UserError(f"sigma_max is {self.sigma_max}: noise begins above {LEAST}, its last level")
        if self.steps < 2 or not 0 <= self.warm_steps <= self.steps:
            raise UserError(
                "a plan needs steps >= 2 and 0 <= warm_steps <= steps, "
                f"not steps {self.steps} and warm_steps {self.warm_steps}"
            )


class Critic(NamedTuple):
    """A trainable judge of (noisy) plans, as pure functions."""

    init: Callable[[Array, Array, Array], Averaged]  # init(key, x0 [B, T, D], condition [B, C])
    update: Callable[..., tuple[Averaged, Metrics]]
    # update(key, state, x0, condition, known, target [B]), regression
    value: Callable[[Averaged, Array], Partial]  # value(state, condition) -> (x, sigma) -> [B]


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
    precision: Precision = "float32"
    """As of the denoiser."""
    accumulate: int = 1
    """As of the denoiser."""

    def __post_init__(self) -> None:
        check_accumulate(self.accumulate)


CLEAN = 0.02  # the level at which plans without noise are judged: near 0, and within what training shows


def _judge(params: Params, condition: Array, x: Array, sigma: Array, *, apply: Callable) -> Array:
    level = jnp.broadcast_to(sigma, (x.shape[0], *sigma.shape[1:])).reshape(x.shape[0], -1).max(-1)
    level = jnp.maximum(level, CLEAN)
    scale = jax.lax.rsqrt(1 + jnp.square(level))
    return apply(params, scale[:, None, None] * x, jnp.log(level) / 4, condition)


@lru_cache(maxsize=64)
def critic(config: CriticConfig) -> Critic:
    """The judge of `config`: regression of a number on plans, at noise levels from none to pure noise."""
    net, optimiser, form = make_value(config.network, config.precision), adam(config), formulation("edm")

    def init(key: Array, x0: Array, condition: Array) -> Averaged:
        return begin(optimiser, net.init(key, x0, jnp.zeros(x0.shape[:1], x0.dtype), condition))

    def update(key: Array, state: Averaged, x0: Array, condition: Array, known: Array, target: Array):
        keys = named_keys(key, "level", "clean", "noise")
        level = form.levels(keys["level"], x0.shape[0], x0.dtype)
        clean = jax.random.bernoulli(keys["clean"], 0.5 if config.noisy else 1.0, level.shape)
        level = jnp.where(clean, CLEAN, level)
        noise = level[:, None, None] * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
        x = x0 + jnp.where(jnp.broadcast_to(known, x0.shape), 0.0, noise)

        def loss(
            params: Params, x: Array, level: Array, condition: Array, target: Array
        ) -> tuple[Array, Metrics]:
            error = jnp.mean(jnp.square(_judge(params, condition, x, level, apply=net.apply) - target))
            return error, {"critic_loss": error}

        rows = (x, level, condition, target)
        return descend(optimiser, state, loss, config.ema, rows, config.accumulate)

    def value(state: Averaged, condition: Array) -> Partial:
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
    sampler = SAMPLERS[config.sampler]
    held = (hold_map if config.sampler == "flow_map" else hold)(denoiser, known, mask)  # type: ignore[arg-type]

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
    special = {"consistency": "consistency", "shortcut": "flow_map"}.get(name)
    if (special or config.sampler) != config.sampler or (not special and config.sampler in _FLOW_SAMPLERS):
        raise UserError(
            f"formulation {name} and sampler {config.sampler} do not go together: consistency models are "
            "sampled by consistency, shortcut models by flow_map, denoisers by the others"
        )
    if name == "shortcut":  # steps of equal time, which it has learned
        return flow(config.steps)
    if config.sigma_max is None:
        return formulation("edm" if special else name).schedule(config.steps)
    return karras(config.steps, sigma_min=LEAST, sigma_max=config.sigma_max)


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
    steps: int = 1  # of Newton's method; 0: one plain gradient step


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
    if value is not None and steering.strength and config.sampler in _FLOW_SAMPLERS:
        raise UserError(
            "a flow map has no denoised point to guide: set the guidance to 0, or train a denoiser"
        )
    if value is not None and steering.strength:
        strength, point, steps = steering
        newton = {"steps": max(steps, 1), "solver_steps": min(steps, 1)}
        denoiser = value_guided(denoiser, value, strength, point=point, covariance="isotropic", **newton)
    x0 = draw_plan(key, denoiser, known, mask, Previous(plan, previous.planned), config, schedule)
    score = jnp.zeros(x0.shape[0]) if value is None else value(x0, jnp.zeros(x0.shape[:1]))
    return best_of(x0, score, count)
