"""Offline-RL algorithms, one a file, each as an `Agent` of three pure functions."""

from typing import Any

from jdp.agents.iql import IQLConfig, IQLState, iql, iql_reward_scale
from jdp.agents.td3_bc import TD3BCConfig, TD3BCState, td3_bc
from jdp.errors import UserError
from jdp.types import Agent, Spec

__all__ = [
    "IQLConfig",
    "IQLState",
    "TD3BCConfig",
    "TD3BCState",
    "iql",
    "iql_reward_scale",
    "make",
    "td3_bc",
]

_FACTORIES: dict[type, Any] = {TD3BCConfig: td3_bc, IQLConfig: iql}


def make(config: TD3BCConfig | IQLConfig, spec: Spec) -> Agent:
    """The agent that the type of `config` names.

    Raises:
        UserError: if no algorithm has this type of config.
    """
    if type(config) not in _FACTORIES:
        known = ", ".join(kind.__name__ for kind in _FACTORIES)
        raise UserError(f"no agent is made from a {type(config).__name__}; give one of {known}")
    return _FACTORIES[type(config)](config, spec)
