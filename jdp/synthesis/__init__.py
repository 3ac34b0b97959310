"""Synthetic experience: target policies, generation, transitions, mixing with real data."""

from jdp.synthesis.experience import (
    Experience,
    Pool,
    draw_batches,
    draw_windows,
    experience,
    pool,
    to_transitions,
    window_lookup,
)
from jdp.synthesis.generate import SamplerConfig, generate
from jdp.synthesis.guided import GuidanceConfig, check_guidance, guide
from jdp.synthesis.imagined import branches, empty_rings, imagine, recorded, refill
from jdp.synthesis.policy import target_log_prob, target_policy

__all__ = [
    "Experience",
    "GuidanceConfig",
    "Pool",
    "SamplerConfig",
    "branches",
    "check_guidance",
    "draw_batches",
    "draw_windows",
    "empty_rings",
    "experience",
    "generate",
    "guide",
    "imagine",
    "pool",
    "recorded",
    "refill",
    "target_log_prob",
    "target_policy",
    "to_transitions",
    "window_lookup",
]
