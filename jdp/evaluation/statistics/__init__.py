"""What a few seeds and episodes say: intervals, tests, aggregates over tasks, and choice among policies."""

from jdp.evaluation.statistics.aggregates import (
    Scores,
    bootstrap_interval,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from jdp.evaluation.statistics.intervals import (
    Band,
    Interval,
    barnard,
    difference,
    difference_from,
    interval,
    share_interval,
    success_interval,
    welch,
)
from jdp.evaluation.statistics.selection import score_by_evaluations

__all__ = [
    "Band",
    "Interval",
    "Scores",
    "barnard",
    "bootstrap_interval",
    "difference",
    "difference_from",
    "interval",
    "iqm",
    "mean",
    "median",
    "optimality_gap",
    "performance_profile",
    "probability_of_improvement",
    "score_by_evaluations",
    "share_interval",
    "success_interval",
    "welch",
]
