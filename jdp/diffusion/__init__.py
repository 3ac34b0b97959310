"""Denoisers, schedules, samplers, guidance and losses (see `jdp.types.Denoiser`)."""

from jdp.diffusion import exact, guidance, losses, samplers, schedules
from jdp.diffusion.denoiser import edm, score
from jdp.diffusion.diffuser import DiffuserConfig, DiffuserState, trajectory_diffuser

__all__ = [
    "DiffuserConfig",
    "DiffuserState",
    "edm",
    "exact",
    "guidance",
    "losses",
    "samplers",
    "schedules",
    "score",
    "trajectory_diffuser",
]
