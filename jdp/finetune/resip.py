"""ResiP (Ankile et al. 2024, arXiv 2407.16677): PPO on a small correction of what a frozen policy does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.draws import NoDraw
from jdp.finetune import base as bases
from jdp.finetune.actor_critic import FineTuneConfig, Improved, begin_improving, critics_loss, improve
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.ppo import clipped_surrogate, flat, normalised
from jdp.networks.mlp import mlp
from jdp.registry import Preset, Task, register
from jdp.types import (
    Bound,
    Decision,
    Learner,
    Method,
    Metrics,
    Network,
    Normal,
    Params,
    Policy,
    PyTree,
    Rollout,
    Spec,
    named_keys,
)


@dataclass(frozen=True)
class ResiPConfig(FineTuneConfig):
    """Settings of ResiP; a step of the loop is one of the task."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=1024, steps=700))
    """A rollout."""
    scale: float = 0.1
    """Of the correction, which is added to the base policy's action."""
    log_std: float = -1.0
    """Of the correction before it is scaled; it does not learn."""
    hidden: tuple[int, ...] = (512, 512)
    """Widths of the correction."""
    critic_hidden: tuple[int, ...] = (512, 512)
    """Widths of the critic."""
    discount: float = 0.999
    """Of a step of the task."""
    epochs: int = 50
    """Passes over a rollout."""
    minibatches: int = 1
    """Of an epoch."""
    critic_learning_rate: float = 5e-3
    """Of the critic's Adam."""
    target_kl: float | None = 0.1
    """Updates stop for this rollout once the policy has moved further (in nats)."""


class Rows(NamedTuple):
    """Steps as minibatches see them, `[B, ...]`."""

    shown: Array  # [B, O + G]
    action: Array  # [B, A], the base policy's
    correction: Array  # [B, A], before it was scaled
    log_prob: Array
    advantage: Array
    target: Array  # of the critic, standardised


def _network(config: ResiPConfig, spec: Spec) -> Network:
    return mlp(
        (*config.hidden, spec.action_dim), initialiser="orthogonal", activation="silu", last_limit=1e-3
    )


def _correction(params: Params, shown: Array, action: Array, config: ResiPConfig, spec: Spec) -> Normal:
    """At states and the base policy's actions `[..., A]`, before it is scaled."""
    mean = _network(config, spec).apply(params, jnp.concatenate([shown, action], axis=-1))
    return Normal(mean, jnp.full_like(mean, math.exp(config.log_std)))


def _init(key: Array, data: PyTree, *, config: ResiPConfig, spec: Spec, base: object) -> Improved:
    """`data` is the state of the base policy."""
    del base
    keys, width = named_keys(key, "actor", "critic"), spec.observation_dim + len(spec.goal) + spec.action_dim
    actor = _network(config, spec).init(keys["actor"], jnp.zeros(width))
    return begin_improving(keys["critic"], actor, data, config, spec)


def _loss(params: Params, rows: Rows, *, config: ResiPConfig, spec: Spec) -> tuple[Array, Metrics]:
    pi = _correction(params["actor"], rows.shown, rows.action, config, spec)
    log_prob, advantage = pi.log_prob(rows.correction), normalised(rows.advantage)
    loss, metrics = clipped_surrogate(log_prob, rows.log_prob, advantage, config.clip)
    return critics_loss(loss, metrics, params, rows.shown, rows.target, config)


def _update(
    key: Array, state: Improved, rollout: Rollout, *, config: ResiPConfig, spec: Spec, base: object
) -> tuple[Improved, Metrics]:
    del base
    decision = rollout.decision
    assert decision.chain is not None and decision.log_prob is not None
    of_base, correction = jnp.moveaxis(decision.chain, 1, 0)  # [T, 2, N, A] to twice [T, N, A]
    drawn = flat((of_base, correction, decision.log_prob["correction"]))

    def rows(shown: Array, advantage: Array, target: Array) -> Rows:
        return Rows(shown, *drawn, advantage, target)

    loss = partial(_loss, config=config, spec=spec)
    return improve(key, state, rollout, config, spec=spec, rows=rows, loss=loss)


def _act(
    key: Array,
    state: Improved,
    carry: PyTree,
    observation: Array,
    goal: Array,
    *,
    config: ResiPConfig,
    spec: Spec,
    base: object,
    explores: bool,
) -> tuple[PyTree, Decision]:
    """The base policy's action, corrected; the chain is that action and the correction, `[2, B, A]`."""
    keys = named_keys(key, "base", "correction")
    policy = bases.method_of(base, spec).policy
    carry, decision = policy.act(keys["base"], state.base, carry, observation, goal)
    shown = bases.shown(state.base, observation, goal, spec)
    pi = _correction(state.trained.params["actor"], shown, decision.action, config, spec)
    drawn = pi.sample(keys["correction"]) if explores else pi.mean
    return carry, decision._replace(
        action=jnp.clip(decision.action + config.scale * drawn, -1.0, 1.0),
        chain=jnp.stack([decision.action, drawn]),
        log_prob={"correction": pi.log_prob(drawn)},
    )


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's, and smaller rollouts."""
    del task
    cpu = ResiPConfig(
        acting=OnPolicyConfig(64, 128), hidden=(128, 128), epochs=10, minibatches=8, log_std=0.0
    )
    tiny = replace(cpu, acting=OnPolicyConfig(4, 32), hidden=(32,), epochs=2, minibatches=2)
    return {
        "smoke": Preset(tiny, updates=2, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=100, batch_size=0, seeds=3),
        "paper": Preset(ResiPConfig(), updates=1_400, batch_size=0, seeds=5),
    }


@register(
    "fine_tuner",
    "resip",
    ResiPConfig,
    presets,
    title="ResiP",
    paper="arXiv 2407.16677",
    idea="a frozen policy's actions, and a small correction of each that learns by PPO",
    departures="constant learning rates; the critic's targets are standardised in the place of rewards",
)
@lru_cache
def resip(config: ResiPConfig, spec: Spec, *, base: object) -> Method:
    """ResiP on any policy, planner or agent of settings `base`, which stays as it is.

    `init` sees the state of the base policy. Equal arguments give the same method.
    """
    settings = (("base", base), ("config", config), ("spec", spec))
    start = bases.method_of(base, spec).policy.init
    explore, act = (Bound(_act, (*settings, ("explores", x))) for x in (True, False))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), NoDraw())
    return Method(learner, Policy(start, act), Policy(start, explore))
