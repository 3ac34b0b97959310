"""Which guidance a synthetic set is made with."""

from dataclasses import dataclass
from typing import Literal

from jax import Array

from jdp.data import Normaliser
from jdp.diffusion.guidance import policy_guided, reference_guided
from jdp.errors import UserError
from jdp.synthesis.policy import target_log_prob, target_policy
from jdp.types import Denoiser, PyTree, Target


@dataclass(frozen=True)
class GuidanceConfig:
    """Policy guidance of the guided arm (`jdp.diffusion.guidance.policy_guided`).

    The defaults approximate the product of data and policy; exact on Gaussians are covariance jacobian,
    solver_steps as many as a trajectory has action entries, and state_gradient.
    """

    coefficient: float = 1.0
    """The power that the policy's likelihood is raised to; 0 is no guidance."""
    at: Literal["moment", "denoised", "denoised_stopped", "reference"] = "moment"
    """moment: moment-matched posterior; denoised: gradient at the denoised point (biased); reference:
    the heuristic of the paper's public code (with --sampler.sampler euler)."""
    covariance: Literal["isotropic", "jacobian"] = "isotropic"
    """Posterior covariance of the actions in mode moment."""
    solver_steps: int = 1
    """Conjugate-gradient steps with covariance jacobian."""
    state_gradient: bool = False
    """Whether the policy's mean carries a gradient to the states."""
    policy_std: float = 1.0
    """Stands for the std of a deterministic actor, in units of the data's pre-tanh actions (in mode
    reference: of actions)."""
    normalise: bool = False
    """Mode reference: scale the gradient to unit norm."""
    point: Literal["noised", "denoised"] = "noised"
    """Mode reference: where the gradient is taken."""


def guide(
    denoiser: Denoiser,
    target: Target,
    states: PyTree,
    normaliser: Normaliser,
    config: GuidanceConfig,
    sigmas: Array,
) -> Denoiser:
    """`denoiser` guided to the S agents stacked in `states`: trajectories come in S equal blocks."""
    dims = {"observation_dim": normaliser.observation_dim, "action_dim": normaliser.action_dim}
    if config.at == "reference":
        return reference_guided(
            denoiser,
            target_log_prob(target, states, normaliser, config.policy_std),
            config.coefficient,
            sigmas,
            point=config.point,
            normalise=config.normalise,
            **dims,
        )
    return policy_guided(
        denoiser,
        target_policy(target, states, normaliser, config.policy_std),
        config.coefficient,
        at=config.at,
        covariance=config.covariance,
        solver_steps=config.solver_steps,
        state_gradient=config.state_gradient,
        **dims,
    )


def check_guidance(config: GuidanceConfig, sampler: str) -> None:
    """Raises `UserError` for settings that do not go together."""
    if config.at == "reference" and sampler != "euler":
        raise UserError(
            f"--guidance.at reference is defined for Euler steps, not for {sampler}: "
            "add --sampler.sampler euler"
        )
    if config.coefficient < 0 or config.policy_std <= 0 or config.solver_steps < 1:
        raise UserError(
            "guidance needs coefficient >= 0, policy_std > 0 and solver_steps >= 1, not "
            f"{config.coefficient}, {config.policy_std} and {config.solver_steps}"
        )
