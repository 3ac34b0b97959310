"""Denoisers, schedules, samplers, guidance and losses (see `jdp.types.Denoiser`)."""

from jdp.diffusion import exact, flow_maps, formulations, guidance, losses, samplers, schedules
from jdp.diffusion.denoiser import edm, score
from jdp.diffusion.diffuser import DiffuserConfig, DiffuserState, trajectory_diffuser
from jdp.diffusion.formulations import FORMULATIONS, Formulation, formulation
from jdp.diffusion.warm import warm_start

__all__ = [
    "FORMULATIONS",
    "DiffuserConfig",
    "DiffuserState",
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
    "trajectory_diffuser",
    "warm_start",
]
