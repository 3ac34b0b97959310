"""Planners, one a file (`jdp.registry` lists them), and the parts that they are made of.

`make(config, spec)` makes the planner that the type of `config` names. Parts, in the order of a decision: a
`Level` says what is known and draws the best trajectory of its denoiser, `plan_of` puts that in the units of
the task, `follow` makes a policy of plans.
"""

from typing import Any

from jdp import registry
from jdp.learning.guides import checked, cost_guide, logic_guide, optimise_guide
from jdp.learning.inverse import InverseConfig
from jdp.learning.plan_critics import CriticConfig
from jdp.learning.plan_models import ModelConfig
from jdp.planners.assembly import as_planned, method, plan_of
from jdp.planners.denoising import denoising
from jdp.planners.drawing import Drawn, best, denoiser_and_value, draw, draw_candidates
from jdp.planners.following import Following, Planned, Planner, follow
from jdp.planners.levels import Learned, Lesson, Level, Steering
from jdp.planners.parts import Parts, encode, first_weights, learn_inverse, outcome, parts_of, study
from jdp.planners.settings import PlannerConfig, ReturnsConfig, SelfImprovementConfig, SteeredConfig
from jdp.planners.trajectory import Previous, SamplingConfig, later, plan_schedule, planned
from jdp.types import Guide, Method, Spec

__all__ = [
    "CriticConfig",
    "Drawn",
    "Following",
    "InverseConfig",
    "Learned",
    "Lesson",
    "Level",
    "ModelConfig",
    "Parts",
    "Planned",
    "Planner",
    "PlannerConfig",
    "Previous",
    "ReturnsConfig",
    "SamplingConfig",
    "SelfImprovementConfig",
    "SteeredConfig",
    "Steering",
    "as_planned",
    "best",
    "cost_guide",
    "denoiser_and_value",
    "denoising",
    "draw",
    "draw_candidates",
    "encode",
    "first_weights",
    "follow",
    "later",
    "learn_inverse",
    "logic_guide",
    "make",
    "method",
    "optimise_guide",
    "outcome",
    "parts_of",
    "plan_of",
    "plan_schedule",
    "planned",
    "study",
]


def make(
    config: Any, spec: Spec, *, guide: Guide | None = None, history: int | None = None, trace: bool = False
) -> Method:
    """The planner that the type of `config` names.

    Args:
        guide: steers what is drawn, in closed loop; of a cost of plans `cost_guide` makes one.
        history: observations that the guide sees (1); see `jdp.types.Context`.
        trace: whether every `Decision.chain` shows how its plan came out of noise.

    Raises:
        UserError: if no planner has this type of config, the planner does not fit the task, or it takes no
            such part.
    """
    return registry.make("planner", config, spec, guide=checked(guide, history), trace=trace or None)
