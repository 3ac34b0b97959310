"""How a trajectory is drawn: samplers with known entries, cold and warm starts."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion.flow_maps import hold_map
from jdp.diffusion.formulations import formulation
from jdp.diffusion.guidance import hold
from jdp.diffusion.samplers import FLOW_SAMPLERS, SAMPLERS
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.schedules import flow
from jdp.diffusion.warm import warm_or_cold, warm_start
from jdp.errors import UserError, check_settings
from jdp.types import Denoiser, expand, named_keys

_SPECIAL = {"consistency": "consistency", "shortcut": "flow_map"}  # formulations with a sampler of their own


@dataclass(frozen=True)
class SamplingConfig(Sampling):
    """How a plan is drawn."""

    sampler: str = "euler"
    """euler (DDIM), heun, dpmpp_2m, dpmpp_2m_sde, ddpm, ...; consistency and flow_map for those models."""
    steps: int = 10
    """Network calls of a plan from nothing."""
    sigma_max: float | None = 20.0
    """Noise of a plan from nothing; none: the whole schedule of the formulation."""
    warm_steps: int = 4
    """The last levels that a plan from the previous one, re-noised, goes through; 0: always from nothing."""
    temperature: float = 1.0
    """Scales the noise that a plan begins with."""

    def __post_init__(self) -> None:
        self.check("SamplingConfig", samplers=SAMPLERS | FLOW_SAMPLERS)
        check_settings("SamplingConfig", warm_steps=(self.warm_steps, 0, self.steps))


class Previous(NamedTuple):
    """What a planner that draws one trajectory remembers: its last plan, for the warm start."""

    plan: Array  # [B, T, D], standardised
    planned: Array  # [B] bool, False before the first plan


def shifted(plan: Array, rows: float) -> Array:
    """`[B, T, D]`, the plan as seen `rows` rows later, interpolated; its last row stands for what follows."""
    length = plan.shape[1]
    at = jnp.minimum(jnp.arange(length, dtype=plan.dtype) + rows, length - 1)
    left = jnp.minimum(jnp.floor(at).astype(jnp.int32), length - 2) if length > 1 else jnp.zeros(1, jnp.int32)
    share = (at - left.astype(plan.dtype))[None, :, None]
    following = jnp.minimum(left + 1, length - 1)
    return (1 - share) * plan[:, left] + share * plan[:, following]


def later(previous: Previous, rows: float) -> Previous:
    """`previous` as seen `rows` rows later."""
    return Previous(shifted(previous.plan, rows), previous.planned)


def nothing(like: Array) -> Previous:
    """What is remembered before the first plan, of the shape of `like` `[B, T, D]`."""
    return Previous(jnp.zeros_like(like), jnp.zeros(like.shape[0], bool))


def planned(x0: Array) -> Previous:
    """What is remembered of new plans `[B, T, D]`."""
    return Previous(x0, jnp.ones(x0.shape[0], bool))


def draw_plan(
    key: Array,
    denoiser: Denoiser,
    known: Array,
    mask: Array,
    previous: Previous,
    config: SamplingConfig,
    schedule: Array,
    trace: bool = False,
) -> Array:
    """`[B, T, D]`, a draw given the entries `known` where `mask`: cold, or warm from the shifted `previous`.

    `previous` is of B plans (repeated for candidates); rows that have planned before begin warm, the others
    cold. The warm start enters `schedule` `[n + 1]` at its last `warm_steps` levels; at the highest level it
    is the cold start of the same key. A schedule may have levels of single entries, `[n + 1, *prefix]`: each
    begins with noise of its own, known ones as they are. With `trace` the whole chain `[n + 1, B, T, D]`; a
    warm one stands still until it begins.
    """
    keys = named_keys(key, "start", "sampler")
    sampler = functools.partial(config.function(), key=keys["sampler"], trace=trace)
    held = (hold_map if config.sampler == "flow_map" else hold)(denoiser, known, mask)  # type: ignore[arg-type]

    def drawn(x: Array, levels: Array) -> Array:
        x = x if levels.ndim == 1 else jnp.where(mask, known, x)  # those at level 0 are not moved
        return sampler(held, x, levels)

    def cold() -> Array:
        noise = jax.random.normal(keys["start"], known.shape, known.dtype)
        return drawn(config.temperature * expand(schedule[0], known) * noise, schedule)

    def warm() -> Array:
        levels = schedule[-(config.warm_steps + 1) :]
        x = warm_start(keys["start"], previous.plan, levels[0], schedule[0], temperature=config.temperature)
        found, still = drawn(x, levels), schedule.shape[0] - levels.shape[0]
        return jnp.concatenate([jnp.repeat(found[:1], still, axis=0), found]) if trace else found

    if config.warm_steps == 0:
        return cold()
    return warm_or_cold(previous.planned, warm, cold, axis=1 if trace else 0)


def check_sampler(config: SamplingConfig, name: str) -> None:
    """Raises `UserError` unless the sampler is one of models of the formulation `name`."""
    special = _SPECIAL.get(name)
    if (special or config.sampler) != config.sampler or (not special and config.sampler in FLOW_SAMPLERS):
        raise UserError(
            f"formulation {name} and sampler {config.sampler} do not go together: consistency models are "
            "sampled by consistency, shortcut models by flow_map, denoisers by the others"
        )


def plan_schedule(config: SamplingConfig, name: str) -> Array:
    """`[steps + 1]`, the levels of a plan from nothing, of models of the formulation `name`.

    Raises:
        UserError: if sampler and formulation do not go together.
    """
    check_sampler(config, name)
    if name == "shortcut":  # steps of equal time, which it has learned
        return flow(config.steps)
    if config.sigma_max is None:
        return formulation("edm" if name in _SPECIAL else name).schedule(config.steps)
    return config.sigmas()
