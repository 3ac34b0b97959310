"""Learned simulators: ensemble, diffusion step, unified model; rollouts, termination rules, ring buffer."""

from typing import Any, Literal

from jdp.errors import UserError
from jdp.types import Spec, WorldModel
from jdp.world_models import termination
from jdp.world_models.diffusion_step import DiffusionStepConfig, diffusion_step
from jdp.world_models.ensemble import EnsembleConfig, EnsembleState, ensemble
from jdp.world_models.history import Histories, History, draw_histories, histories
from jdp.world_models.ring import Ring, push, ring
from jdp.world_models.rollout import (
    Rollout,
    RolloutConfig,
    agent_actor,
    noisy_actor,
    replay_actor,
    rollout,
)
from jdp.world_models.training import bootstrap, draw_bootstrap, split_holdout
from jdp.world_models.training import train as train_epochs
from jdp.world_models.unified import Unified, UnifiedConfig, unified, unified_world_model

Kind = Literal["ensemble", "diffusion_step", "unified"]

__all__ = [
    "WORLD_MODELS",
    "DiffusionStepConfig",
    "EnsembleConfig",
    "EnsembleState",
    "Histories",
    "History",
    "Kind",
    "Ring",
    "Rollout",
    "RolloutConfig",
    "Unified",
    "UnifiedConfig",
    "agent_actor",
    "bootstrap",
    "diffusion_step",
    "draw_bootstrap",
    "draw_histories",
    "ensemble",
    "histories",
    "make",
    "noisy_actor",
    "push",
    "replay_actor",
    "ring",
    "rollout",
    "split_holdout",
    "termination",
    "train_epochs",
    "unified",
    "unified_world_model",
]


WORLD_MODELS: dict[Kind, type] = {
    "ensemble": EnsembleConfig,
    "diffusion_step": DiffusionStepConfig,
    "unified": UnifiedConfig,
}
_FACTORIES: dict[type, Any] = {
    EnsembleConfig: ensemble,
    DiffusionStepConfig: diffusion_step,
    UnifiedConfig: unified_world_model,
}


def make(config: Any, spec: Spec, rule: termination.Rule | None) -> WorldModel:
    """The world model that the type of `config` names; see `jdp.world_models.termination.choose` for `rule`.

    Raises:
        UserError: if no world model has this type of config.
    """
    if type(config) not in _FACTORIES:
        known = ", ".join(kind.__name__ for kind in _FACTORIES)
        raise UserError(f"no world model is made from a {type(config).__name__}; give one of {known}")
    return _FACTORIES[type(config)](config, spec, rule)
