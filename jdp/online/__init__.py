"""Agents that learn while they act, one a file; `jdp.registry.entries("online")` lists them."""

from typing import Any

from jdp import registry
from jdp.types import Method, Spec, Task, WorldModel

__all__ = ["make"]


def make(config: Any, spec: Spec, *, task: Task | None = None, model: WorldModel | None = None) -> Method:
    """The agent that the type of `config` names; how much it acts is `config.acting`, for the loops.

    Args:
        task: of agents that plan, the simulator that they plan in.
        model: or the world model.

    Raises:
        UserError: if no agent has this type of config, or it plans in nothing, or cannot plan in this.
    """
    return registry.make("online", config, spec, task=task, model=model)
