"""Parts of one vector, each with a noise level of its own: known, hidden or to be drawn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.diffusion.guidance import hold
from jdp.diffusion.samplers import SAMPLERS
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
