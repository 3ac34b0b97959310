"""Parts of one vector, each with a noise level of its own: known, hidden or to be drawn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.diffusion.guidance import hold
from jdp.diffusion.samplers import SAMPLERS
from jdp.errors import UserError
from jdp.types import Denoiser, Spec, named_keys


class Parts(NamedTuple):
    """Which entries of `x` belong together, `[A + O + 2]` bool each."""

    action: np.ndarray
    change: np.ndarray
    reward: np.ndarray  # with the terminal flag


def parts(spec: Spec) -> Parts:
    """The parts of `x`; every one has a noise level of its own."""
    a, o = spec.action_dim, spec.observation_dim
    part = np.repeat(np.arange(3), (a, o, 2))
    return Parts(part == 0, part == 1, part == 2)


class Apart(Protocol):
    """A config that says how the levels of parts are drawn in training, each by itself."""

    @property
    def clean(self) -> float: ...  # share of rows in which a part is known (level 0)
    @property
    def noised(self) -> float: ...  # share of rows in which a part is hidden (level `sigma_max`)
    @property
    def sigma_max(self) -> float: ...
    @property
    def p_mean(self) -> float: ...
    @property
    def p_std(self) -> float: ...


def check_shares(config: Apart) -> None:
    """Raises `UserError` unless the shares `clean` and `noised` are shares of one whole."""
    if not (config.clean >= 0 and config.noised >= 0 and config.clean + config.noised <= 1):
        raise UserError(
            f"{type(config).__name__} needs shares clean and noised that are not negative and sum to at most "
            f"1, not {config.clean} and {config.noised}"
        )


def levels_apart(keys: Mapping[str, Array], count: int, number: int, config: Apart) -> Array:
    """`[count, number]` levels of training, of each of `number` parts independently of the others.

    A part is clean, hidden or at a log-normal level. Consumes the keys "level" and "kind".
    """
    noisy = jnp.exp(config.p_mean + config.p_std * jax.random.normal(keys["level"], (count, number)))
    kind = jax.random.uniform(keys["kind"], (count, number))
    level = jnp.where(kind < config.clean, 0.0, noisy)
    return jnp.where(kind > 1 - config.noised, config.sigma_max, level)


def entrywise(levels: Array, widths: Sequence[int]) -> Array:
    """`[B, sum(widths)]`, the level of each entry, of those of the parts `[B, P]`."""
    return jnp.repeat(levels, np.array(widths), axis=1, total_repeat_length=sum(widths))


def conditional(
    key: Array,
    denoiser: Denoiser,
    known: Array,
    clean: np.ndarray,
    hidden: np.ndarray,
    sigmas: Array,
    *,
    sampler: str = "dpmpp_2m",
) -> Array:
    """`[B, D]`, draws of `x` given its entries in `clean`, with those in `hidden` marginalised out.

    `known` is `[B, D]`, of which only the entries in `clean` are read; the masks are `[D]`. The denoiser
    knows a level per entry, and what it returns in the entries in `hidden` means nothing.
    """
    keys = named_keys(key, "start", "hidden", "sampler")
    x = sigmas[0] * jax.random.normal(keys["start"], known.shape, known.dtype)
    noise = sigmas[0] * jax.random.normal(keys["hidden"], known.shape, known.dtype)
    shown = hold(denoiser, noise, jnp.asarray(hidden)[None], sigmas[0])
    shown = hold(shown, known, jnp.asarray(clean)[None])
    return SAMPLERS[sampler](shown, x, sigmas, key=keys["sampler"])
