"""ResiP (Ankile et al. 2024, arXiv 2407.16677): PPO on a small correction of what a frozen policy does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data.draws import NoDraw
from jdp.finetune import base as bases
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.optimiser import Trained, begin
from jdp.learning.ppo import PPOConfig, clipped_surrogate, epochs, judged, normalised, with_value_loss
from jdp.learning.running import RunningMoments, no_moments
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
class ResiPConfig(PPOConfig):
    """Settings of ResiP; a step of the loop is one of the task."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=1024, steps=700))
    """A rollout."""
    scale: float = 0.1
    """Of the correction, which is added to the base policy's action."""
    log_std: float = -1.0
    """Of the correction before it is scaled; it does not learn."""
    hidden: tuple[int, ...] = (512, 512)
    """Widths of the correction and of the critic."""
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

    def optimiser(self) -> optax.GradientTransformation:
        """Adam for the correction and for the critic, with their own rates."""
        both = optax.multi_transform(
            {"actor": optax.adam(self.learning_rate), "critic": optax.adam(self.critic_learning_rate)},
            {"actor": "actor", "critic": "critic"},
        )
        return optax.chain(optax.clip_by_global_norm(self.grad_norm), both)


class ResiPState(NamedTuple):
    """The correction and the critic, and the base policy."""

    trained: Trained  # parameters {"actor", "critic"}
    base: PyTree  # of the base policy, as it was
    targets: RunningMoments  # [1], of the critic


class Rows(NamedTuple):
    """Steps as minibatches see them, `[B, ...]`."""

    shown: Array  # [B, O + G]
    action: Array  # [B, A], the base policy's
    correction: Array  # [B, A], before it was scaled
    log_prob: Array
    advantage: Array
    target: Array  # of the critic, standardised


def _networks(config: ResiPConfig, spec: Spec) -> tuple[Network, Network]:
    net = partial(mlp, initialiser="orthogonal", activation="silu")
    return net((*config.hidden, spec.action_dim), last_limit=1e-3), net((*config.hidden, 1))


def _correction(params: Params, shown: Array, action: Array, config: ResiPConfig, spec: Spec) -> Normal:
    """At states and the base policy's actions `[..., A]`, before it is scaled."""
    mean = _networks(config, spec)[0].apply(params, jnp.concatenate([shown, action], axis=-1))
    return Normal(mean, jnp.full_like(mean, math.exp(config.log_std)))


def _init(key: Array, data: PyTree, *, config: ResiPConfig, spec: Spec, base: object) -> ResiPState:
    """`data` is the state of the base policy."""
    del base
    keys, (actor, critic) = named_keys(key, "actor", "critic"), _networks(config, spec)
    width = spec.observation_dim + len(spec.goal)
    params = {
        "actor": actor.init(keys["actor"], jnp.zeros(width + spec.action_dim)),
        "critic": critic.init(keys["critic"], jnp.zeros(width)),
    }
    return ResiPState(begin(config.optimiser(), params), jax.tree.map(jnp.copy, data), no_moments(1))


def _loss(params: Params, rows: Rows, *, config: ResiPConfig, spec: Spec) -> tuple[Array, Metrics]:
    pi = _correction(params["actor"], rows.shown, rows.action, config, spec)
    log_prob, advantage = pi.log_prob(rows.correction), normalised(rows.advantage)
    loss, metrics = clipped_surrogate(log_prob, rows.log_prob, advantage, config.clip)
    value = _networks(config, spec)[1].apply(params["critic"], rows.shown)[:, 0]
    return with_value_loss(loss, metrics, value, rows.target, config.value_weight)


def _update(
    key: Array, state: ResiPState, rollout: Rollout, *, config: ResiPConfig, spec: Spec, base: object
) -> tuple[ResiPState, Metrics]:
    del base
    lead, critic = rollout.reward.shape, _networks(config, spec)[1]

    def shown(observation: Array, goal: Array) -> Array:
        rows, wanted = (x.reshape(math.prod(lead), x.shape[-1]) for x in (observation, goal))
        return bases.shown(state.base, rows, wanted, spec)

    def value(observation: Array, goal: Array) -> Array:
        return critic.apply(state.trained.params["critic"], shown(observation, goal))[:, 0].reshape(lead)

    found, decision = judged(rollout, state.targets, value, config), rollout.decision
    assert decision.chain is not None and decision.log_prob is not None
    of_base, correction = jnp.moveaxis(decision.chain, 1, 0)  # [T, 2, N, A] to twice [T, N, A]
    each = (of_base, correction, decision.log_prob["correction"], found.advantage, found.target)
    flat = (x.reshape(math.prod(lead), *x.shape[2:]) for x in each)
    rows = Rows(shown(rollout.observation, rollout.goal), *flat)
    trained, metrics = epochs(key, state.trained, rows, partial(_loss, config=config, spec=spec), config)
    return ResiPState(trained, state.base, found.moments), metrics


def _act(
    key: Array,
    state: ResiPState,
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
