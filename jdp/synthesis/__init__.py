"""Synthetic experience: diffused (guided to policies), or rolled out in a world model."""

from jdp.synthesis.branches import branches, histories_at, recorded
from jdp.synthesis.diffused import chained_experience, synthetic_experience
from jdp.synthesis.generate import SamplerConfig, generate
from jdp.synthesis.guided import GuidanceConfig, check_guidance, guide
from jdp.synthesis.imagined import TrainedModel, imagine, rolled_out_experience, rollouts_from_data, target_of
from jdp.synthesis.policy import target_log_prob, target_policy
from jdp.synthesis.rings import empty_rings, refill
from jdp.synthesis.spread import Widest, fit_sampler, kept_spread, widest_direction, window_spread

__all__ = [
    "GuidanceConfig",
    "SamplerConfig",
    "TrainedModel",
    "Widest",
    "branches",
    "chained_experience",
    "check_guidance",
    "empty_rings",
    "fit_sampler",
    "generate",
    "guide",
    "histories_at",
    "imagine",
    "kept_spread",
    "recorded",
    "refill",
    "rolled_out_experience",
    "rollouts_from_data",
    "synthetic_experience",
    "target_log_prob",
    "target_of",
    "target_policy",
    "widest_direction",
    "window_spread",
]
