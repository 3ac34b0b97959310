"""Planners, one a file, each as a `Planner` of pure functions."""

from typing import Any

from jdp.errors import UserError
from jdp.planners.adapt_diffuser import AdaptDiffuserConfig, adapt_diffuser
from jdp.planners.decision_diffuser import DecisionDiffuserConfig, decision_diffuser
from jdp.planners.diffuser import DiffuserPlannerConfig, diffuser
from jdp.planners.graph_guided import GraphGuidedConfig, graph_guided
from jdp.planners.hierarchical import HierarchicalConfig, hierarchical
from jdp.planners.inverse import InverseConfig
from jdp.planners.models import ModelConfig
from jdp.planners.trajectory import CriticConfig, SamplingConfig
from jdp.planners.veteran import VeteranConfig, veteran
from jdp.types import Planner, Spec

__all__ = [
    "PLANNERS",
    "AdaptDiffuserConfig",
    "CriticConfig",
    "DecisionDiffuserConfig",
    "DiffuserPlannerConfig",
    "GraphGuidedConfig",
    "HierarchicalConfig",
    "InverseConfig",
    "ModelConfig",
    "SamplingConfig",
    "VeteranConfig",
    "adapt_diffuser",
    "decision_diffuser",
    "diffuser",
    "graph_guided",
    "hierarchical",
    "make",
    "veteran",
]

PLANNERS: dict[str, type] = {
    "diffuser": DiffuserPlannerConfig,
    "decision_diffuser": DecisionDiffuserConfig,
    "hierarchical": HierarchicalConfig,
    "veteran": VeteranConfig,
    "adapt_diffuser": AdaptDiffuserConfig,
    "graph_guided": GraphGuidedConfig,
}  # the config of every planner, by name
_FACTORIES: dict[str, Any] = {
    "diffuser": diffuser,
    "decision_diffuser": decision_diffuser,
    "hierarchical": hierarchical,
    "veteran": veteran,
    "adapt_diffuser": adapt_diffuser,
    "graph_guided": graph_guided,
}


def make(config: Any, spec: Spec) -> Planner:
    """The planner that the type of `config` names, one of `PLANNERS`.

    Raises:
        UserError: if no planner has this type of config, or the planner does not fit the task.
    """
    for name, kind in PLANNERS.items():
        if type(config) is kind:
            return _FACTORIES[name](config, spec)
    known = ", ".join(kind.__name__ for kind in PLANNERS.values())
    raise UserError(f"no planner is made from a {type(config).__name__}; give one of {known}")
