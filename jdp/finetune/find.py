"""FIND (Chen et al. 2024, arXiv 2407.19453): PPO on the Gaussian that a frozen policy starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.finetune import base as bases
from jdp.finetune import noise
from jdp.finetune.actor_critic import (
    FineTuneConfig,
    Improved,
    begin_improving,
    critics_loss,
    improve,
)
from jdp.finetune.base import View
from jdp.finetune.chunked import chunk_method
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.learning.ppo import clipped_surrogate, flat, normalised
from jdp.networks.mlp import mlp
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.registry import Preset, Task, register
from jdp.types import (
    Decision,
    Method,
    Metrics,
    Network,
    Normal,
    Params,
    Rollout,
    Spec,
    named_keys,
)


@dataclass(frozen=True)
class FINDConfig(FineTuneConfig):
    """Settings of FIND; a step of the loop is a chunk of actions."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=64, steps=32))
    """A rollout; steps are chunks."""
    kl_weight: float = 0.01
    """Of the divergence from N(0, I), which keeps starts where the policy was trained."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the network of mean and standard deviation."""
    epochs: int = 5
    """Passes over a rollout."""
    minibatches: int = 8
    """Of an epoch."""


class Rows(NamedTuple):
    """Decisions as minibatches see them, `[B, ...]`."""

    shown: Array  # [B, O + G]
    start: Array  # [B, chunk * A], in units of the base policy's own noise
    log_prob: Array
    advantage: Array
    target: Array  # of the critic, standardised


def _network(config: FINDConfig, width: int) -> Network:
    return mlp((*config.hidden, 2 * width), activation="silu", last_limit=1e-3)


def starts(params: Params, shown: Array, config: FINDConfig, width: int) -> Normal:
    """The Gaussian of starts `[B, width]` at `[B, C]`: N(0, I) before training, to 1e-2."""
    mean, log_std = jnp.split(_network(config, width).apply(params, shown), 2, axis=-1)
    return Normal(mean, jnp.exp(jnp.clip(log_std, -5.0, 2.0)))


def _init(key: Array, data: CloneState, *, config: FINDConfig, spec: Spec, base: ChunkConfig) -> Improved:
    """`data` is the state of the base policy, whose averaged weights stay."""
    keys, seen = named_keys(key, "actor", "critic"), spec.observation_dim + len(spec.goal)
    actor = _network(config, base.chunk * spec.action_dim).init(keys["actor"], jnp.zeros(seen))
    return begin_improving(keys["critic"], actor, data, config, spec)


def _loss(
    params: Params, rows: Rows, *, config: FINDConfig, spec: Spec, base: ChunkConfig
) -> tuple[Array, Metrics]:
    own = starts(params["actor"], rows.shown, config, base.chunk * spec.action_dim)
    advantage = normalised(rows.advantage)
    loss, metrics = clipped_surrogate(own.log_prob(rows.start), rows.log_prob, advantage, config.clip)
    far = jnp.mean(own.kl(Normal(jnp.zeros_like(own.mean), jnp.ones_like(own.mean))))
    loss, metrics = loss + config.kl_weight * far, {**metrics, "kl_to_prior": far}
    return critics_loss(loss, metrics, params, rows.shown, rows.target, config)


def _update(
    key: Array,
    state: Improved,
    rollout: Rollout,
    *,
    config: FINDConfig,
    spec: Spec,
    base: ChunkConfig,
) -> tuple[Improved, Metrics]:
    decision = rollout.decision
    assert decision.chain is not None and decision.log_prob is not None
    drawn = flat((decision.chain[:, 0], decision.log_prob["start"]))  # [T N, D], [T N]

    def rows(shown: Array, advantage: Array, target: Array) -> Rows:
        return Rows(shown, *drawn, advantage, target)

    loss = partial(_loss, config=config, spec=spec, base=base)
    return improve(key, state, rollout, config, spec=spec, rows=rows, loss=loss, steps=base.execute)


def _explore(
    key: Array, state: Improved, view: View, *, config: FINDConfig, spec: Spec, base: ChunkConfig
) -> Decision:
    """A chunk for each of B environments; the chain is its start alone, `[1, B, D]`."""
    own = starts(state.trained.params["actor"], view.shown, config, base.chunk * spec.action_dim)
    start = own.sample(key)
    made = noise.decode(state.base, view.shown, start, base)
    decision = decided_anew(made[:, : bases.width(base, spec)])
    return decision._replace(chain=start[None], log_prob={"start": own.log_prob(start)})


def _chunk(
    key: Array, state: Improved, view: View, *, config: FINDConfig, spec: Spec, base: ChunkConfig
) -> Array:
    """As it is scored: starts are drawn, for the base policy's own are."""
    own = starts(state.trained.params["actor"], view.shown, config, base.chunk * spec.action_dim)
    return noise.decode(state.base, view.shown, own.sample(key), base)


def presets(task: Task) -> Mapping[str, Preset]:
    """Our own, for the paper's are of pictures."""
    del task
    cpu = FINDConfig()
    tiny = replace(cpu, acting=OnPolicyConfig(4, 4), hidden=(32,), critic_hidden=(32,), minibatches=2)
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=50, batch_size=0, seeds=3),
        "paper": Preset(replace(cpu, acting=OnPolicyConfig(256, 64)), updates=200, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "find",
    FINDConfig,
    presets,
    title="FIND",
    paper="arXiv 2407.19453",
    idea="PPO on the Gaussian that a frozen policy's noise starts from",
    departures="the Gaussian depends on the state, and the critic too; the true divergence from N(0, I) "
    "in the place of a quadratic",
    chunks="execute",  # an action of its behaviour is a chunk of so many
)
@lru_cache
def find(config: FINDConfig, spec: Spec, *, base: ChunkConfig) -> Method:
    """FIND on a `diffusion_policy` of settings `base`, whose sampler draws no noise of its own.

    Its `behaviour` decides chunks, for `jdp.tasks.simulators.chunked`; `policy` acts step by step. `init`
    sees the state of the base policy. Equal arguments give the same method.
    """
    return chunk_method(_init, _update, _explore, _chunk, config, spec, noise.check_decoder(base))
