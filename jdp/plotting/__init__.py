"""Figures of runs. Every function returns a matplotlib figure; nothing is shown or saved here."""

from jdp.plotting.figures import bars, claim, curves, dynamics_by_position, marginals
from jdp.plotting.frames import render, strip

__all__ = [
    "bars",
    "claim",
    "curves",
    "dynamics_by_position",
    "marginals",
    "render",
    "strip",
]
