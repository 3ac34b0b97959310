"""Diffusion of tokens: masking, likelihoods, samplers (see `jdp.types.TokenDenoiser`)."""

from jdp.diffusion.discrete import (
    denoiser,
    exact,
    likelihood,
    losses,
    masking,
    samplers,
    transitions,
)
from jdp.diffusion.discrete.samplers import Unmasked, Unmasking, unmask

__all__ = [
    "Unmasked",
    "Unmasking",
    "denoiser",
    "exact",
    "likelihood",
    "losses",
    "masking",
    "samplers",
    "transitions",
    "unmask",
]
