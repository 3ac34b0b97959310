"""DiffusionOPD (Li et al. 2026, arXiv 2605.15055): teachers make one student, on the student's own chains."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.alignment.chain import DrawnConfig, divergence, drawn, drawn_by, sample
from jdp.alignment.learner import Aligned, aligned, each
from jdp.alignment.models import Model
from jdp.alignment.presets import presets_of
from jdp.distributions import Distribution
from jdp.finetune.chain import Moves, moves
from jdp.learning.ppo import flat
from jdp.registry import register
from jdp.types import Learner, Metrics, Params


@dataclass(frozen=True)
class OPDConfig(DrawnConfig):
    """Settings of DiffusionOPD; what it is held to are its teachers, so `kl_weight` says nothing."""

    group: int = 1
    """Chains for each condition."""


class Rows(NamedTuple):
    """Steps of the student's chains, `[R, ...]`, and what the teacher of their condition draws there."""

    moves: Moves
    taught: Distribution


def _collect(
    key: Array, state: Aligned, batch: Array, *, config: OPDConfig, model: Model
) -> tuple[Rows, Metrics]:
    """The judge is the teachers: `judge(condition [B, C]) -> Denoiser`."""
    condition = each(batch, config)
    found = moves(sample(key, state.trained.params, condition, config, model), condition)
    every = flat(found)
    return Rows(every, drawn_by(state.judge(every.shown), every, config, model)), {}


def _loss(
    params: Params, rows: Rows, *, reference: Params, config: OPDConfig, model: Model
) -> tuple[Array, Metrics]:
    """`KL(student || teacher)` of every step: their means' distance, in standard deviations."""
    del reference
    apart = jnp.mean(divergence(drawn(params, rows.moves, config, model), rows.taught, config, model))
    return apart, {"loss": apart, "kl": apart * model.sampling.steps, "approximate_kl": jnp.zeros(())}


@register(
    "alignment",
    "opd",
    OPDConfig,
    presets_of(OPDConfig(learning_rate=2e-3), 400, 256),
    title="DiffusionOPD",
    paper="arXiv 2605.15055",
    idea="a student's own chains, each step pulled to that of the teacher of its condition",
    judge="teachers",
)
@lru_cache
def opd(config: OPDConfig, model: Model) -> Learner:
    """DiffusionOPD of `model`, whose conditions say which teacher counts. Equal arguments, equal learners."""
    return aligned(_collect, _loss, config, model)
