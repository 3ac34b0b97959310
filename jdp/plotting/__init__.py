"""Figures of runs. Every function returns a matplotlib figure; nothing is shown or saved here."""

from jdp.plotting.agreement import agreement, distributions
from jdp.plotting.alignment import aligned_plans, efficiency, samples
from jdp.plotting.cards import card
from jdp.plotting.comparisons import aggregates, evaluations, improvement, learning, profiles
from jdp.plotting.experience import dynamics_by_position, experience_marginals, marginals
from jdp.plotting.figures import bars, claim, curves
from jdp.plotting.frames import render, strip, trajectories
from jdp.plotting.metrics import metric
from jdp.plotting.plans import (
    Episode,
    beside,
    cost,
    denoising,
    denoising_of,
    draw_maze,
    episodes,
    film,
    plans,
    save_film,
)

__all__ = [
    "Episode",
    "aggregates",
    "agreement",
    "aligned_plans",
    "bars",
    "beside",
    "card",
    "claim",
    "cost",
    "curves",
    "denoising",
    "denoising_of",
    "distributions",
    "draw_maze",
    "dynamics_by_position",
    "efficiency",
    "episodes",
    "evaluations",
    "experience_marginals",
    "film",
    "improvement",
    "learning",
    "marginals",
    "metric",
    "plans",
    "profiles",
    "render",
    "samples",
    "save_film",
    "strip",
    "trajectories",
]
