"""Denoisers, schedules, samplers, guidance and losses (see `jdp.types.Denoiser`)."""

from jdp.diffusion import (
    chains,
    exact,
    flow_maps,
    formulations,
    geometry,
    guidance,
    losses,
    monte_carlo,
    samplers,
    schedules,
    transitions,
)
from jdp.diffusion.chains import chain_kl, chain_log_prob, sample
from jdp.diffusion.denoiser import edm, score
from jdp.diffusion.formulations import FORMULATIONS, Formulation, formulation
from jdp.diffusion.warm import warm_start

__all__ = [
    "FORMULATIONS",
    "Formulation",
    "chain_kl",
    "chain_log_prob",
    "chains",
    "edm",
    "exact",
    "flow_maps",
    "formulation",
    "formulations",
    "geometry",
    "guidance",
    "losses",
    "monte_carlo",
    "sample",
    "samplers",
    "schedules",
    "score",
    "transitions",
    "warm_start",
]
