"""Denoisers, schedules, samplers, guidance and losses (see `jdp.types.Denoiser`)."""

from jdp.diffusion import exact, flow_maps, formulations, guidance, losses, samplers, schedules
from jdp.diffusion.denoiser import edm, score
from jdp.diffusion.formulations import FORMULATIONS, Formulation, formulation
from jdp.diffusion.warm import warm_start

__all__ = [
    "FORMULATIONS",
    "Formulation",
    "edm",
    "exact",
    "flow_maps",
    "formulation",
    "formulations",
    "guidance",
    "losses",
    "samplers",
    "schedules",
    "score",
    "warm_start",
]
