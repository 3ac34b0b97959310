"""ReinFlow (Zhang et al. 2025, arXiv 2505.22094): PPO on a flow whose Euler steps have learned noise."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.errors import check_choices
from jdp.finetune import base as bases
from jdp.finetune import noisy_flow
from jdp.finetune.actor_critic import (
    FineTuneConfig,
    Improved,
    begin_improving,
    critics_loss,
    improve,
)
from jdp.finetune.base import View
from jdp.finetune.chunked import chunk_method
from jdp.finetune.noisy_flow import NoisyFlowConfig
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.learning.optimiser import copied
from jdp.learning.ppo import clipped_surrogate, flat, normalised
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.registry import Preset, Task, register
from jdp.types import Decision, Method, Metrics, Params, Rollout, Spec, named_keys


@dataclass(frozen=True)
class ReinFlowConfig(FineTuneConfig):
    """Settings of ReinFlow, those of its runs in Gymnasium; a step of the loop is a chunk of actions."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=40, steps=500))
    """A rollout; steps are chunks."""
    flow: NoisyFlowConfig = field(default_factory=NoisyFlowConfig)
    """The flow that is learned from, and its noise."""
    entropy_weight: float = 0.03
    """Of the noise's entropy, a mean over steps and entries, which is a reward."""
    log_prob: Literal["mean", "sum"] = "mean"
    """Of a chain: "mean" over its steps and entries, as in the authors' code, or "sum", its density."""
    clip: float = 0.01
    """How far the ratio of a whole chain may go from 1."""
    epochs: int = 5
    """Passes over a rollout."""
    minibatches: int = 1
    """Of an epoch."""
    learning_rate: float = 4.5e-5
    """Of the Adam of flow and noise, constant."""
    critic_learning_rate: float = 6.5e-4
    """Of the critic's Adam, constant."""
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the critic."""
    target_kl: float | None = 1.0
    """Updates stop for this rollout once the policy has moved further (in nats)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)


class Rows(NamedTuple):
    """Chains as minibatches see them, `[B, ...]`."""

    shown: Array  # [B, O + G]
    chain: Array  # [B, K + 1, D]
    log_prob: Array
    advantage: Array
    target: Array  # of the critic, standardised


def _init(key: Array, data: CloneState, *, config: ReinFlowConfig, spec: Spec, base: ChunkConfig) -> Improved:
    """`data` is the state of the base policy, whose averaged weights are improved."""
    keys, seen = named_keys(key, "noise", "critic"), spec.observation_dim + len(spec.goal)
    noise = config.flow.noise(base.chunk * spec.action_dim).init(keys["noise"], jnp.zeros(seen + 1))
    actor = {"flow": copied(data.actor.ema), "noise": noise}
    return begin_improving(keys["critic"], actor, data, config, spec)


def _density(
    params: Params,
    shown: Array,
    drawn: Array,
    config: ReinFlowConfig,
    base: ChunkConfig,
    spec: Spec,
) -> tuple[Array, Array]:
    """Of chains `[B, K + 1, D]`, as `config.log_prob` says; and the entropy of their noise."""
    states = jnp.moveaxis(drawn, 1, 0)
    density, entropy = noisy_flow.log_prob(params, shown, states, config.flow, base, spec)
    entries = config.flow.levels * bases.width(base, spec) if config.log_prob == "mean" else 1
    return density / entries, entropy


def _loss(
    params: Params, rows: Rows, *, config: ReinFlowConfig, spec: Spec, base: ChunkConfig
) -> tuple[Array, Metrics]:
    own, entropy = _density(params["actor"], rows.shown, rows.chain, config, base, spec)
    loss, metrics = clipped_surrogate(own, rows.log_prob, normalised(rows.advantage), config.clip)
    entropy = jnp.mean(entropy)
    loss, metrics = loss - config.entropy_weight * entropy, {**metrics, "entropy": entropy}
    return critics_loss(loss, metrics, params, rows.shown, rows.target, config)


def _update(
    key: Array,
    state: Improved,
    rollout: Rollout,
    *,
    config: ReinFlowConfig,
    spec: Spec,
    base: ChunkConfig,
) -> tuple[Improved, Metrics]:
    assert rollout.decision.chain is not None
    drawn = flat(jnp.moveaxis(rollout.decision.chain, 1, 2))  # [T, K + 1, N, D] to [T N, K + 1, D]

    def rows(shown: Array, advantage: Array, target: Array) -> Rows:
        old, _ = _density(state.trained.params["actor"], shown, drawn, config, base, spec)
        return Rows(shown, drawn, old, advantage, target)

    loss = partial(_loss, config=config, spec=spec, base=base)
    return improve(key, state, rollout, config, spec=spec, rows=rows, loss=loss, steps=base.execute)


def _explore(
    key: Array, state: Improved, view: View, *, config: ReinFlowConfig, spec: Spec, base: ChunkConfig
) -> Decision:
    """A chunk for each of B environments, and the steps that drew it."""
    drawn = noisy_flow.sample(key, state.trained.params["actor"], view.shown, config.flow, base, spec)
    executed = drawn[-1][:, : bases.width(base, spec)]
    return decided_anew(executed)._replace(chain=drawn)


def _chunk(
    key: Array, state: Improved, view: View, *, config: ReinFlowConfig, spec: Spec, base: ChunkConfig
) -> Array:
    """As it is scored: the flow alone, without the noise."""
    weights = state.trained.params["actor"]
    return jnp.clip(
        noisy_flow.sample(key, weights, view.shown, config.flow, base, spec, eta=0.0)[-1], -1.0, 1.0
    )


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's (its runs in Gymnasium), and smaller rollouts with wider clips."""
    del task
    paper, acting = ReinFlowConfig(), OnPolicyConfig(64, 32)
    cpu = replace(
        paper, acting=acting, minibatches=8, clip=0.05, learning_rate=3e-4, critic_hidden=(256, 256)
    )
    tiny = replace(
        cpu,
        acting=OnPolicyConfig(4, 4),
        flow=NoisyFlowConfig(levels=2, hidden=(16,)),
        critic_hidden=(32,),
        minibatches=2,
    )
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=50, batch_size=0, seeds=3),
        "paper": Preset(paper, updates=1_000, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "reinflow",
    ReinFlowConfig,
    presets,
    title="ReinFlow",
    paper="arXiv 2505.22094",
    idea="PPO on a flow, whose Euler steps become random by noise that learns",
    departures="states of the chain are not clipped, nor are log-densities; constant learning rates and "
    "bounds of the noise; the critic's targets are standardised",
    chunks="execute",  # an action of its behaviour is a chunk of so many
    formulation="flow",  # of the policies that it improves
)
@lru_cache
def reinflow(config: ReinFlowConfig, spec: Spec, *, base: ChunkConfig) -> Method:
    """ReinFlow on a `diffusion_policy` of settings `base`, which is trained as a flow.

    Its `behaviour` decides chunks, for `jdp.tasks.simulators.chunked`; `policy` acts step by step, without
    the noise. `init` sees the state of the base policy. Equal arguments give the same method.
    """
    return chunk_method(_init, _update, _explore, _chunk, config, spec, noisy_flow.check_base(base))
