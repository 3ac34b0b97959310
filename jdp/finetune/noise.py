"""The noise that a frozen policy starts from, as an action: what DSRL, FIND and GoRL choose.

A sampler without noise of its own takes a start to a chunk of actions, always the same, so a distribution of
starts is one of actions, and the base policy stays a black box.
"""

import jax.numpy as jnp
from jax import Array

from jdp.errors import UserError
from jdp.finetune.chain import check_base
from jdp.policies import actions
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig

DETERMINISTIC = ("euler", "heun", "dpmpp_2m")


def check_decoder(base: object) -> DiffusionPolicyConfig:
    """The settings of a base policy whose chunks depend on the noise of their start alone.

    Raises:
        UserError: if it is no such policy.
    """
    found = check_base(base)
    if found.sampler not in DETERMINISTIC:
        raise UserError(
            f"the base policy's sampler, {found.sampler}, draws noise of its own: "
            f"train one with --settings.sampler {' or '.join(DETERMINISTIC)}"
        )
    return found


def decode(state: CloneState, shown: Array, noise: Array, base: ChunkConfig) -> Array:
    """`[B, D]`, the chunk that the policy makes of `noise` `[B, D]` (its own is N(0, I)) at `[B, C]`."""
    sampling = base.sampling()
    sigmas = sampling.sigmas()
    denoiser = actions.denoiser(state.actor.ema, shown, base)
    return jnp.clip(sampling.function()(denoiser, sigmas[0] * noise, sigmas), -1.0, 1.0)
