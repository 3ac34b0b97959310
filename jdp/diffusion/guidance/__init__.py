"""Guidance: functions that take a denoiser and return a denoiser. They nest."""

from jdp.diffusion.guidance.classifier_free import classifier_free, classifier_free_doubled
from jdp.diffusion.guidance.composition import compose, product, without
from jdp.diffusion.guidance.inpainting import condition, hold, inpaint, pulled
from jdp.diffusion.guidance.logic import logic_guided
from jdp.diffusion.guidance.optimised import blend, optimised
from jdp.diffusion.guidance.policy import (
    At,
    Covariance,
    PolicyInSpace,
    normalise_safely,
    policy_guided,
    reference_guided,
)
from jdp.diffusion.guidance.prefix import pseudo_inverse
from jdp.diffusion.guidance.reward import linear_reward, reward_conditioned
from jdp.diffusion.guidance.value import Value, value_guided

__all__ = [
    "At",
    "Covariance",
    "PolicyInSpace",
    "Value",
    "blend",
    "classifier_free",
    "classifier_free_doubled",
    "compose",
    "condition",
    "hold",
    "inpaint",
    "linear_reward",
    "logic_guided",
    "normalise_safely",
    "optimised",
    "policy_guided",
    "product",
    "pseudo_inverse",
    "pulled",
    "reference_guided",
    "reward_conditioned",
    "value_guided",
    "without",
]
