"""DPPO (Ren et al. 2024, arXiv 2409.00588): PPO on the denoising steps of a diffusion policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.finetune import base as bases
from jdp.finetune import chain
from jdp.finetune.actor_critic import (
    FineTuneConfig,
    Improved,
    begin_improving,
    critics_loss,
    improve,
)
from jdp.finetune.base import View
from jdp.finetune.chain import ChainConfig, Moves
from jdp.finetune.chunked import chunk_method
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.actors import decided_anew
from jdp.learning.optimiser import copied
from jdp.learning.ppo import clipped_surrogate, flat, normalised
from jdp.policies.chunks import ChunkConfig, CloneState
from jdp.registry import Preset, Task, register
from jdp.types import (
    Decision,
    Method,
    Metrics,
    Params,
    Rollout,
    Spec,
)


@dataclass(frozen=True)
class DPPOConfig(FineTuneConfig):
    """Settings of DPPO; a step of the loop is a chunk of actions, a minibatch is one of denoising steps."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=40, steps=125))
    """A rollout; steps are chunks."""
    chain: ChainConfig = field(default_factory=ChainConfig)
    """The chain that is learned from."""
    clip: float = 0.01
    """How far the ratio of a last denoising step may go from 1."""
    clip_first: float = 0.01
    """That of the first learned one."""
    clip_rate: float = 3.0
    """Curvature between the two: the clip grows with `exp(rate t)`."""
    denoising_discount: float = 0.99
    """Of the advantage, for each denoising step that still follows."""
    epochs: int = 5
    """Passes over a rollout."""
    minibatches: int = 20
    """Of an epoch."""
    learning_rate: float = 1e-4
    """Of the denoiser's Adam, constant."""
    target_kl: float | None = 1.0
    """Updates stop for this rollout once the policy has moved further (in nats)."""
    log_prob: str = "mean"
    """"mean" over the entries of a chunk, as in the authors' code, or "sum", its density."""
    bc_weight: float = 0.0
    """Of the divergence of the base policy's denoising steps from those that learn."""


class Rows(NamedTuple):
    """Denoising steps as minibatches see them, `[B, ...]`."""

    moves: Moves
    log_prob: Array
    advantage: Array
    target: Array  # of the critic, standardised


def _init(key: Array, data: CloneState, *, config: DPPOConfig, spec: Spec, base: ChunkConfig) -> Improved:
    """`data` is the state of the base policy, whose averaged weights are improved."""
    del base
    return begin_improving(key, copied(data.actor.ema), data, config, spec)


def _loss(
    params: Params, rows: Rows, *, frozen: Params, config: DPPOConfig, spec: Spec, base: ChunkConfig
) -> tuple[Array, Metrics]:
    log_prob = _reduced(
        chain.log_prob(params["actor"], rows.moves, config.chain, base, spec), config, spec, base
    )
    share = rows.moves.step / jnp.maximum(config.chain.learned - 1, 1)
    growth = jnp.expm1(config.clip_rate * share) / jnp.expm1(config.clip_rate)
    clip = config.clip_first + (config.clip - config.clip_first) * growth
    left = (config.chain.learned - 1 - rows.moves.step).astype(jnp.float32)
    advantage = normalised(rows.advantage) * config.denoising_discount**left
    loss, metrics = clipped_surrogate(log_prob, rows.log_prob, advantage, clip)
    if config.bc_weight:
        apart = chain.divergence(frozen, params["actor"], rows.moves, config.chain, base, spec)
        far = jnp.mean(_reduced(apart, config, spec, base))
        loss, metrics = loss + config.bc_weight * far, {**metrics, "kl_to_base": far}
    return critics_loss(loss, metrics, params, rows.moves.shown, rows.target, config)


def _reduced(log_prob: Array, config: DPPOConfig, spec: Spec, base: ChunkConfig) -> Array:
    return log_prob / bases.width(base, spec) if config.log_prob == "mean" else log_prob


def _update(
    key: Array, state: Improved, rollout: Rollout, *, config: DPPOConfig, spec: Spec, base: ChunkConfig
) -> tuple[Improved, Metrics]:
    assert rollout.decision.chain is not None
    drawn = jnp.moveaxis(rollout.decision.chain, 1, 0)  # [T, K + 1, N, D] to [K + 1, T, N, D]
    drawn = drawn.reshape(len(drawn), -1, drawn.shape[-1])

    def rows(shown: Array, *judged: Array) -> Rows:
        moves = chain.moves(drawn, shown)
        every = flat(moves)
        old = chain.log_prob(state.trained.params["actor"], every, config.chain, base, spec)
        # What was said of a decision holds for all its denoising steps.
        each = flat(tuple(jnp.broadcast_to(x[None], moves.step.shape) for x in judged))
        return Rows(every, _reduced(old, config, spec, base), *each)

    return improve(
        key,
        state,
        rollout,
        config,
        spec=spec,
        rows=rows,
        loss=partial(_loss, frozen=state.base.actor.ema, config=config, spec=spec, base=base),
        steps=base.execute,
    )


def _explore(
    key: Array, state: Improved, view: View, *, config: DPPOConfig, spec: Spec, base: ChunkConfig
) -> Decision:
    """A chunk for each of B environments, and the steps that drew it."""
    weights = state.base.actor.ema, state.trained.params["actor"]
    drawn = chain.sample(key, *weights, view.shown, config.chain, base, spec)
    executed = drawn[-1][:, : bases.width(base, spec)]
    return decided_anew(executed)._replace(chain=drawn)


def _chunk(
    key: Array, state: Improved, view: View, *, config: DPPOConfig, spec: Spec, base: ChunkConfig
) -> Array:
    """As it is scored: the same chain, whose steps have no floor of noise."""
    quiet = replace(config.chain, std_floor=1e-6)
    weights = state.base.actor.ema, state.trained.params["actor"]
    return jnp.clip(chain.sample(key, *weights, view.shown, quiet, base, spec)[-1], -1.0, 1.0)


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's (its runs in Gymnasium), and smaller rollouts: a tenth of its steps.

    In mazes wider clips and a higher rate come to the end sooner; on bodies they ruin the policy.
    """
    paper = DPPOConfig(acting=OnPolicyConfig(40, 125), chain=ChainConfig(20, 10))
    cpu = DPPOConfig(acting=OnPolicyConfig(64, 32), minibatches=8)
    if task.maze:
        cpu = replace(cpu, clip=0.1, clip_first=0.1, learning_rate=3e-4)
    tiny = replace(
        cpu, acting=OnPolicyConfig(4, 4), chain=ChainConfig(4, 2), critic_hidden=(32,), minibatches=2
    )
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=50, batch_size=0, seeds=3),
        "paper": Preset(paper, updates=200, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "dppo",
    DPPOConfig,
    presets,
    title="DPPO",
    paper="arXiv 2409.00588",
    idea="PPO on the last denoising steps, each a Gaussian around what the denoiser says",
    departures="noise and log-densities are not clipped; the critic's targets are standardised; the chain is "
    "DDIM with noise on the base policy's EDM levels",
    chunks="execute",  # an action of its behaviour is a chunk of so many
)
@lru_cache
def dppo(config: DPPOConfig, spec: Spec, *, base: ChunkConfig) -> Method:
    """DPPO on a `diffusion_policy` of settings `base`; `spec` is the task's, of single actions.

    Its `behaviour` decides chunks `[B, execute * A]`, for `jdp.tasks.simulators.chunked`, and its `update`
    takes their `Rollout`; `policy` acts step by step. `init` sees the state of the base policy.
    """
    return denoising_method(config, spec, base)


def denoising_method(config: DPPOConfig, spec: Spec, base: ChunkConfig) -> Method:
    """PPO on denoising steps: what DPPO and DiWA are, in their own tasks."""
    return chunk_method(_init, _update, _explore, _chunk, config, spec, chain.check_base(base))
