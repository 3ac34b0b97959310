"""Barriers: which actions keep a task's rules, as linear conditions, and the nearest that keeps them all.

A rule is a function `h` of the state that is to stay at 0 or above. Where it is a barrier, a condition on the
present action alone sees to that. The nearest action to what a policy wants is then the solution of a small
quadratic problem, which is solved exactly. As `jdp.learning.filters.filtered` any policy acts so.
"""

from jdp.tasks.barriers.braking import BALL, Condition, PointMass, apart, clear
from jdp.tasks.barriers.conditions import condition, raised
from jdp.tasks.barriers.halfspaces import Projected, halfspace, project

__all__ = [
    "BALL",
    "Condition",
    "PointMass",
    "Projected",
    "apart",
    "clear",
    "condition",
    "halfspace",
    "project",
    "raised",
]
