"""Learned simulators: ensemble, diffusion step, unified model; rollouts, termination rules, ring buffer."""

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

__all__ = [
    "DiffusionStepConfig",
    "EnsembleConfig",
    "EnsembleState",
    "Histories",
    "History",
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
