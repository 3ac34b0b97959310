"""Agents that learn while they act, one a file; `jdp.registry.entries("online")` lists them."""

from typing import Any

from jdp import registry
from jdp.types import Method, Spec

__all__ = ["make"]


def make(config: Any, spec: Spec) -> Method:
    """The agent that the type of `config` names; how much it acts is `config.acting`, for the loops.

    Raises:
        UserError: if no agent has this type of config.
    """
    return registry.make("online", config, spec)
