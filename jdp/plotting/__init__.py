"""Figures of runs. Every function returns a matplotlib figure; nothing is shown or saved here."""

from jdp.plotting.agreement import agreement, distributions
from jdp.plotting.comparisons import aggregates, evaluations, improvement, profiles
from jdp.plotting.figures import bars, claim, curves, dynamics_by_position, marginals
from jdp.plotting.frames import render, strip
from jdp.plotting.plans import Episode, cost, denoising, draw_maze, episodes, film, plans, save_film

__all__ = [
    "Episode",
    "aggregates",
    "agreement",
    "bars",
    "claim",
    "cost",
    "curves",
    "denoising",
    "distributions",
    "draw_maze",
    "dynamics_by_position",
    "episodes",
    "evaluations",
    "film",
    "improvement",
    "marginals",
    "plans",
    "profiles",
    "render",
    "save_film",
    "strip",
]
