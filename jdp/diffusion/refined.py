"""A coarse choice, refined by diffusion that is told which reward to aim at (AirLLM, arXiv 2507.11515)."""

from jax import Array

from jdp.diffusion.guidance.reward import reward_conditioned
from jdp.diffusion.guidance.value import Value
from jdp.diffusion.sampling import Sampling
from jdp.types import Denoiser


def refined(
    key: Array,
    denoiser: Denoiser,
    coarse: Array,
    sampling: Sampling,
    reward: Value,
    target: Array | float,
    *,
    variance: Array | float = 0.01,
) -> Array:
    """`[B, ..., D]`, what the data hold near `coarse` `[B, ..., D]` at a reward of `target`.

    `coarse`, of any policy, is noised to `sampling.sigma_max` and denoised given the reward: a low level
    keeps most of it, a high one little. In AirLLM PPO makes the coarse choice, and a network that was trained
    with and without its reward refines it; here any trained denoiser does, told by `reward_conditioned`. The
    key is consumed.

    Args:
        denoiser: of what is refined, for instance a policy's of actions at the observations of the rows.
        reward: `(x [B, ..., D], sigma [B]) -> [B]`, as that of `value_guided`.
        target: `[]` or `[B]`, the reward that is asked for; ask within those of the data.
        variance: `[]` or `[B]`, how exactly.
    """
    guided = reward_conditioned(denoiser, reward, target, variance=variance)
    return sampling.draw(key, guided, coarse.shape, around=coarse)
