"""Learned simulators: ensemble, diffusion step, unified model; rollouts, termination rules, ring buffer.

One file each; `jdp.registry.entries("world_model")` lists them.
"""

from typing import Any

from jdp import registry
from jdp.types import Spec, WorldModel
from jdp.world_models import termination
from jdp.world_models.bootstrap import BootstrapDraw, Bootstrapped, bootstrap
from jdp.world_models.history import Histories, History, HistoryDraw, histories
from jdp.world_models.ring import Ring, push, ring
from jdp.world_models.rollout import REPLAY, Noisy, Rollout, RolloutConfig, noisy_policy, rollout

__all__ = [
    "REPLAY",
    "BootstrapDraw",
    "Bootstrapped",
    "Histories",
    "History",
    "HistoryDraw",
    "Noisy",
    "Ring",
    "Rollout",
    "RolloutConfig",
    "bootstrap",
    "histories",
    "make",
    "noisy_policy",
    "push",
    "ring",
    "rollout",
    "termination",
]


def make(config: Any, spec: Spec, *, rule: termination.Rule | None = None) -> WorldModel:
    """The world model that the type of `config` names; see `jdp.world_models.termination.choose` for `rule`.

    Raises:
        UserError: if no world model has this type of config.
    """
    return registry.make("world_model", config, spec, rule=rule)
