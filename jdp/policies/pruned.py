"""A trained diffusion policy with fewer blocks, which learns from the whole one (arXiv 2508.04663)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp import registry
from jdp.data import SegmentRows
from jdp.data.normalise import Affine
from jdp.errors import UserError
from jdp.learning import averaged, pruning
from jdp.learning.averaged import Averaged
from jdp.networks.conditional_mlp import conditioned
from jdp.networks.depth import depth_prune
from jdp.policies import actions, chunks
from jdp.policies.chunks import CloneState
from jdp.policies.diffusion_policy import DiffusionPolicyConfig
from jdp.policies.relabelled import imitated, share_of
from jdp.types import (
    Bound,
    Learner,
    Method,
    Metrics,
    Params,
    PyTree,
    Segments,
    Spec,
    bind,
    expand,
    named_keys,
)


class Distilling(NamedTuple):
    """A pruned policy, and whom it learns from; it acts as a `CloneState` does."""

    actor: Averaged
    standardise: Affine  # of observations, [O]
    teacher: Params
    rates: PyTree  # of the actor's structure, the share of the learning rate at which each leaf learns


def pruned(
    config: DiffusionPolicyConfig,
    spec: Spec,
    state: CloneState,
    keep: Sequence[int],
    *,
    learning_rate: float | None = None,
    steps: int = 5_000,
    sensitivities: Array | None = None,
    protected: int = 0,
) -> tuple[DiffusionPolicyConfig, Method]:
    """`(its config, the method)` of the policy of `config` and `state` with the blocks `keep` alone.

    The method's learner begins with those blocks and matches what the whole network predicts of the data's
    noised chunks; its first state is the policy without the other blocks. Of what it has learned
    `CloneState(state.actor, state.standardise)` is a state of `jdp.policies.make(its config, spec)`.

    Args:
        state: of one seed; the averaged weights are pruned, and taught.
        learning_rate: of Adam at the first step; None: as the config has it.
        steps: updates over which it falls to 0.
        sensitivities: `[len(keep)]` of the blocks that are kept (`pruning.sensitivity`): the more sensitive
            ones learn more slowly. None: all alike.
        protected: so many of the kept blocks at the front do not learn, nor what lies before them.

    Raises:
        UserError: for other policies, and blocks that the network has not.
    """
    if not isinstance(config, DiffusionPolicyConfig):
        name = registry.entry_of("policy", config).name
        raise UserError(f"{name} is not a diffusion_policy: prune its network by jdp.learning.pruning")
    network, params = depth_prune(config.network(), state.actor.ema, keep)
    rate = config.learning_rate if learning_rate is None else learning_rate
    smaller = replace(config, blocks=len(keep), learning_rate=rate, steps=max(steps, 1))
    rates = pruning.distillation_rates(network, params, sensitivities, protected=protected)
    plain = registry.make("policy", smaller, spec)
    learner = Learner(
        bind(_init, params, state.actor.ema, state.standardise, rates, config=smaller),
        Bound(_update, (("config", smaller), ("spec", spec), ("whole", config))),
        plain.learner.draws,
    )
    return smaller, Method(learner, plain.policy)


def _init(
    params: Params,
    teacher: Params,
    standardise: Affine,
    rates: PyTree,
    key: Array,
    rows: SegmentRows,
    *,
    config: DiffusionPolicyConfig,
) -> Distilling:
    """Nothing of it is drawn, nor read of the data."""
    del key, rows
    # The fit loop donates the state, and neither the teacher's own state nor its leaves twice.
    params, teacher, standardise, rates = jax.tree.map(jnp.copy, (params, teacher, standardise, rates))
    return Distilling(averaged.begin(config.optimiser(), params), standardise, teacher, rates)


def _update(
    key: Array,
    state: Distilling,
    batch: Segments,
    *,
    config: DiffusionPolicyConfig,
    whole: DiffusionPolicyConfig,
    spec: Spec,
) -> tuple[Distilling, Metrics]:
    """One step towards what the teacher predicts of the batch's chunks with noise."""
    keys = named_keys(key, "level", "noise")
    seen, x0 = chunks.example(batch, state.standardise, config, spec)
    sigma = actions.levels(keys["level"], x0.shape[0], config)
    weight = share_of(imitated(batch, spec), x0.dtype)
    x = x0 + expand(sigma, x0) * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
    taught = (conditioned(whole.network().apply), (state.teacher, seen))

    def loss(params: Params) -> tuple[Array, Metrics]:
        learns = (conditioned(config.network().apply), (params, seen))
        return pruning.distillation_loss(config.trains(), learns, taught, x, sigma, weight=weight)

    optimiser = pruning.at_rates(config.optimiser(), state.rates)
    actor, metrics = averaged.descend(optimiser, state.actor, loss, config.ema)
    return state._replace(actor=actor), metrics
