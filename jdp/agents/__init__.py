"""Offline-RL algorithms, one a file, each a `jdp.types.Method`; `jdp.registry.entries("agent")` lists them.

from jdp.agents.td3_bc import TD3BCConfig

method = jdp.agents.make(TD3BCConfig(), episodes.spec)
"""

from typing import Any

from jdp import registry
from jdp.types import Method, Spec, WorldModel

__all__ = ["make"]


def make(config: Any, spec: Spec, *, model: WorldModel | None = None) -> Method:
    """The agent that the type of `config` names; model-based ones learn from rollouts of `model`.

    Raises:
        UserError: if no agent has this type of config, or it needs a model, or another kind of model.
    """
    return registry.make("agent", config, spec, model=model)
