"""What methods on tokens share: masked states, the log probabilities of what was masked, and their losses.

There are M states for each sample, and `target` says what their masked tokens are to be. Shown tokens count
nowhere.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.alignment.learner import AlignConfig
from jdp.alignment.models import TokenModel
from jdp.diffusion.discrete.likelihood import of_states
from jdp.distributions import Categorical
from jdp.errors import UserError, check_settings
from jdp.learning.ppo import clipped_surrogate
from jdp.types import Metrics, Params


@dataclass(frozen=True)
class TokenConfig(AlignConfig):
    """Settings of methods on tokens."""

    clip: float = 0.2
    """How far the ratio of probabilities may go from 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, clip=(self.clip, 0, 1e6))


@dataclass(frozen=True)
class StepsConfig(TokenConfig):
    """Settings of methods that learn from some steps of a chain."""

    learned: int = 2
    """Steps of a chain that are learned from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, learned=(self.learned, 1, 1_000_000))


def checked(config: TokenConfig, model: TokenModel) -> TokenModel:
    """`model`.

    Raises:
        UserError: if it is not one of tokens, or takes fewer steps than are to be learned from.
    """
    name = type(config).__name__
    if not isinstance(model, TokenModel):
        raise UserError(f"{name} aligns a model of tokens (TokenModel), not a {type(model).__name__}")
    if isinstance(config, StepsConfig) and config.learned > model.sampling.steps:
        raise UserError(
            f"{name}.learned is {config.learned}, but the sampler takes {model.sampling.steps} steps: learn "
            "from fewer, or take more"
        )
    return model


class Rows(NamedTuple):
    """Masked states and what they became, `[R, ...]`."""

    shown: Array  # [R, C]
    state: Array  # [R, M, L]
    target: Array  # [R, M, L]
    log_prob: Array  # [R, M, L], of the target, by the parameters that drew
    advantage: Array  # [R, M]


def predicted(params: Params, shown: Array, state: Array, model: TokenModel) -> Categorical:
    """`[R, M, L]`, what the masked tokens of states `[R, M, L]` are."""
    return of_states(model.denoiser(params, shown), state, model.vocabulary)


def log_prob(found: Categorical, state: Array, target: Array, model: TokenModel) -> Array:
    """`[R, M, L]`, of every masked token; 0 of shown ones."""
    return found.log_prob(target, event_axes=(), mask=state == model.vocabulary)


def rows_of(
    params: Params, shown: Array, state: Array, target: Array, advantage: Array, model: TokenModel
) -> Rows:
    """Rows that were drawn by `params`."""
    found = predicted(params, shown, state, model)
    return Rows(shown, state, target, log_prob(found, state, target, model), advantage)


def parts(state: Array, model: TokenModel) -> Array:
    """`[R, M, L]`: sums over it are means over the masked tokens (0 where none is)."""
    masked = (state == model.vocabulary).astype(jnp.float32)
    return masked / jnp.maximum(jnp.sum(masked, axis=-1, keepdims=True), 1)


def held(
    found: Categorical, rows: Rows, reference: Params, config: TokenConfig, model: TokenModel
) -> tuple[Array, Array]:
    """`([], [])`: `kl_weight` times the divergence from the reference of a masked token, and that itself."""
    theirs = predicted(reference, rows.shown, rows.state, model)
    apart = found.kl(theirs, event_axes=()) * parts(rows.state, model)
    mean = jnp.mean(jnp.sum(apart, axis=-1))
    return config.kl_weight * mean, mean


def loss(
    params: Params, rows: Rows, *, reference: Params, config: TokenConfig, model: TokenModel
) -> tuple[Array, Metrics]:
    """The clipped surrogate of single tokens, of every state the mean over the masked ones."""
    found = predicted(params, rows.shown, rows.state, model)
    ours = log_prob(found, rows.state, rows.target, model)
    advantage = rows.advantage[..., None] * parts(rows.state, model) * model.length  # the mean divides by L
    total, metrics = clipped_surrogate(ours, rows.log_prob, advantage, config.clip)
    penalty, apart = held(found, rows, reference, config, model)
    return total + penalty, {"loss": total + penalty, "kl": apart, **metrics}
