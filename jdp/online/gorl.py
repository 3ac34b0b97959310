"""GoRL (Zhang et al. 2025, arXiv 2512.02581): PPO in the latent space of a decoder that grows out of it.

It learns from scratch, so it is an agent and no fine-tuner: the decoder is the identity at first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.data.draws import NoDraw
from jdp.data.normalise import Affine, identity
from jdp.errors import UserError, check_settings
from jdp.learning import vector_flow
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.actors import decided_anew, remembers_nothing
from jdp.learning.optimiser import begin
from jdp.learning.ppo import PPOConfig, clipped_surrogate, normalised, with_value_loss
from jdp.learning.running import no_moments
from jdp.networks.mlp import mlp
from jdp.online import ppo
from jdp.online.ppo import PPOState, Rows
from jdp.online.presets import TOYS
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

STD_LIMIT = 10.0  # of the latent policy
PRE_TANH_LIMIT = 3.0  # of the actions that a decoder is fitted to, before their tanh


@dataclass(frozen=True)
class GoRLConfig(PPOConfig):
    """Settings of GoRL, with flow matching; "later" is said of the stages after the first decoder."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=2048, steps=480))
    """A rollout."""
    refits: tuple[int, ...] = (61, 122, 153)
    """Updates after which the decoder is fitted anew, and the latent policy begins anew at N(0, I)."""
    rollouts: int = 20
    """The last ones before a refit, whose good actions the decoder learns."""
    good: float = 0.5
    """Share of the actions of a rollout that are good: those of the largest advantages."""
    hidden: tuple[int, ...] = (32, 32, 32, 32)
    """Widths of the latent policy."""
    critic_hidden: tuple[int, ...] = (256, 256, 256, 256, 256)
    """Widths of the critic."""
    decoder_hidden: tuple[int, ...] = (64, 64, 64, 64)
    """Widths of the decoder's velocity."""
    decoder_levels: int = 10
    """Euler steps of the decoder."""
    decoder_learning_rate: float = 3e-4
    """Of the decoder's Adam, constant."""
    fit_steps: int = 50_000
    """Of Adam in one refit."""
    fit_batch_size: int = 8_192
    """Actions in a step of it."""
    entropy_weight: float = 0.01
    """Of the latent policy's entropy, which is a reward."""
    z_weight: float = 5e-4
    """Of the mean squares of the latent policy's mean and standard deviation."""
    z_weight_later: float = 1e-3
    """The same in later stages."""
    clip: float = 0.15
    """How far the ratio of probabilities may go from 1."""
    clip_later: float = 0.3
    """The same in later stages."""
    discount: float = 0.995
    """Of a step of the task."""
    epochs: int = 16
    """Passes over a rollout."""
    learning_rate: float = 1e-3
    """Of Adam, constant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            type(self).__name__,
            rollouts=(self.rollouts, 1, 1_000_000),
            good=(self.good, 1e-6, 1),
            decoder_levels=(self.decoder_levels, 1, 1000),
            fit_steps=(self.fit_steps, 1, 1e9),
            fit_batch_size=(self.fit_batch_size, 1, 1e9),
        )
        stages = [b - a for a, b in zip((0, *self.refits), self.refits, strict=False)]
        if any(stage < self.rollouts for stage in stages):
            raise UserError(
                f"GoRLConfig.refits is {self.refits}: each must come at least {self.rollouts} updates "
                "(GoRLConfig.rollouts) after the one before"
            )

    def kept(self) -> int:
        """Actions of a rollout that are good."""
        return max(round(self.good * self.acting.environments * self.acting.steps), 1)


class GoRLState(NamedTuple):
    """The latent policy with its critic, the decoder, and what the next one will learn."""

    latent: PPOState
    decoder: Params
    shown: Affine  # [O], by which the decoder sees observations
    good: Array  # [R, kept, O + A], observations and actions before their tanh, in a ring of rollouts
    updates: Array  # [] int32


def _latent(config: GoRLConfig, spec: Spec) -> Network:
    return mlp((*config.hidden, 2 * spec.action_dim), activation="silu", last_limit=1e-3)


def _critic(config: GoRLConfig) -> Network:
    return mlp((*config.critic_hidden, 1), activation="silu")


def _decoder(config: GoRLConfig, spec: Spec) -> Network:
    return mlp((*config.decoder_hidden, spec.action_dim), activation="silu")


def latent_policy(params: Params, shown: Array, config: GoRLConfig, spec: Spec) -> Normal:
    """At standardised observations `[..., O]`; N(0, I) before training, to 1e-2."""
    mean, raw = jnp.split(_latent(config, spec).apply(params, shown), 2, axis=-1)
    std = jax.nn.softplus(raw + jnp.log(jnp.expm1(1.0)))  # 1 at 0
    return Normal(mean, jnp.clip(std, 1e-3, STD_LIMIT))


def stage(state: GoRLState, config: GoRLConfig) -> Array:
    """`[]` int32, how often the decoder has been fitted."""
    return jnp.sum(state.updates >= jnp.array(config.refits, jnp.int32), dtype=jnp.int32)


def decode(state: GoRLState, observation: Array, z: Array, config: GoRLConfig, spec: Spec) -> Array:
    """`[B, A]`, actions before their tanh: `z` `[B, A]` itself until the decoder has been fitted."""
    network, levels = _decoder(config, spec), config.decoder_levels
    found = vector_flow.push(state.decoder, state.shown(observation), z, levels, network)
    return jnp.where(stage(state, config) > 0, found, z)


def _init(key: Array, data: PyTree, *, config: GoRLConfig, spec: Spec) -> GoRLState:
    del data
    keys, o, a = named_keys(key, "actor", "critic", "decoder"), spec.observation_dim, spec.action_dim
    params = {
        "actor": _latent(config, spec).init(keys["actor"], jnp.zeros(o)),
        "critic": _critic(config).init(keys["critic"], jnp.zeros(o)),
    }
    latent = PPOState(begin(config.optimiser(), params), no_moments(o), no_moments(1))
    decoder = _decoder(config, spec).init(keys["decoder"], jnp.zeros(o + a + 1))
    good = jnp.zeros((config.rollouts, config.kept(), o + a))
    return GoRLState(latent, decoder, identity(o), good, jnp.int32(0))


def _loss(
    params: Params, rows: Rows, *, config: GoRLConfig, spec: Spec, later: Array
) -> tuple[Array, Metrics]:
    pi = latent_policy(params["actor"], rows.observation, config, spec)
    clip = jnp.where(later, config.clip_later, config.clip)
    log_prob, advantage = pi.log_prob(rows.action), normalised(rows.advantage)
    loss, metrics = clipped_surrogate(log_prob, rows.log_prob, advantage, clip)
    entropy = jnp.mean(jnp.sum(jnp.log(pi.std) + 0.5 * jnp.log(2 * jnp.pi * jnp.e), axis=-1))
    size = jnp.mean(jnp.square(pi.mean)) + jnp.mean(jnp.square(pi.std))
    loss = loss - config.entropy_weight * entropy
    loss = loss + jnp.where(later, config.z_weight_later, config.z_weight) * size
    value = _critic(config).apply(params["critic"], rows.observation)[:, 0]
    metrics = {**metrics, "entropy": entropy, "z_size": size}
    return with_value_loss(loss, metrics, value, rows.target, config.value_weight)


def _fit(
    key: Array, good: Array, shown: Affine, due: Array, config: GoRLConfig, spec: Spec
) -> tuple[Params, Array]:
    """A decoder of the good actions, and its mean loss: a new one where it is `due` [], else no use."""
    rows, o = good.reshape(-1, good.shape[-1]), spec.observation_dim
    return vector_flow.fit(
        key,
        shown(rows[:, :o]),
        jnp.clip(rows[:, o:], -PRE_TANH_LIMIT, PRE_TANH_LIMIT),
        jnp.where(due, config.fit_steps, 0),
        network=_decoder(config, spec),
        optimiser=optax.adam(config.decoder_learning_rate),
        batch_size=config.fit_batch_size,
    )


def _keep(state: GoRLState, rollout: Rollout, advantage: Array, config: GoRLConfig) -> Array:
    """`state.good` with the good actions of `rollout` in the place of its oldest ones."""
    assert rollout.decision.chain is not None
    rows = jnp.concatenate([rollout.observation, rollout.decision.chain[:, 1]], axis=-1)
    _, places = jax.lax.top_k(advantage.reshape(-1), config.kept())
    best = rows.reshape(-1, rows.shape[-1])[places]
    return state.good.at[state.updates % config.rollouts].set(best)


def _update(
    key: Array, state: GoRLState, rollout: Rollout, *, config: GoRLConfig, spec: Spec
) -> tuple[GoRLState, Metrics]:
    keys = named_keys(key, "learn", "fit", "actor")
    assert rollout.decision.chain is not None
    loss = partial(_loss, config=config, spec=spec, later=stage(state, config) > 0)
    z, critic = rollout.decision.chain[:, 0], _critic(config)
    latent, advantage, metrics = ppo.learn(keys["learn"], state.latent, rollout, z, critic, loss, config)
    good, updates = _keep(state, rollout, advantage, config), state.updates + 1

    due = jnp.any(updates == jnp.array(config.refits, jnp.int32))
    shown = latent.observations.affine()
    decoder, fit_loss = _fit(keys["fit"], good, shown, due, config, spec)
    actor = _latent(config, spec).init(keys["actor"], jnp.zeros(spec.observation_dim))
    anew = latent._replace(trained=begin(config.optimiser(), {**latent.trained.params, "actor": actor}))
    begun, going = (anew, decoder, shown), (latent, state.decoder, state.shown)
    latent, decoder, shown = jax.tree.map(lambda new, old: jnp.where(due, new, old), begun, going)
    return GoRLState(latent, decoder, shown, good, updates), {**metrics, "decoder_loss": fit_loss}


def _act(
    key: Array,
    state: GoRLState,
    carry: tuple[()],
    observation: Array,
    goal: Array,
    *,
    config: GoRLConfig,
    spec: Spec,
    explores: bool,
) -> tuple[tuple[()], Decision]:
    """The chain is what the latent policy says and what the decoder makes of it, `[2, B, A]`."""
    del goal
    shown = state.latent.observations.affine()(observation)
    pi = latent_policy(state.latent.trained.params["actor"], shown, config, spec)
    z = pi.sample(key) if explores else pi.mean
    action = decode(state, observation, z, config, spec)
    decision = decided_anew(jnp.tanh(action))
    return carry, decision._replace(chain=jnp.stack([z, action]), log_prob={"action": pi.log_prob(z)})


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's 60, 60, 30 and 30 million steps, and PPO's smaller rollouts with two refits."""
    few = {"rollouts": 5, "fit_steps": 3_000, "fit_batch_size": 1_024, "critic_hidden": (128, 128)}
    cpu, updates = replace(GoRLConfig(refits=(60, 100)), acting=OnPolicyConfig(16, 128), **few), 150
    cpu = replace(cpu, hidden=(64, 64), epochs=10, target_kl=0.03)
    if task.dataset in TOYS:
        cpu, updates = replace(cpu, discount=0.9, refits=(20, 40)), 70
    elif task.maze is not None:
        cpu, updates = replace(cpu, acting=OnPolicyConfig(128, 64), refits=(100, 200)), 300
    tiny = replace(
        cpu, acting=OnPolicyConfig(4, 32), epochs=2, minibatches=4, refits=(4,), rollouts=2,
        hidden=(16,), critic_hidden=(16,), decoder_hidden=(16,), fit_steps=20, fit_batch_size=32,
    )  # fmt: skip
    return {
        "smoke": Preset(tiny, updates=8, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=updates, batch_size=0, seeds=3),
        "paper": Preset(GoRLConfig(), updates=183, batch_size=0, seeds=5),
    }


@register(
    "online",
    "gorl",
    GoRLConfig,
    presets,
    title="GoRL",
    paper="arXiv 2512.02581",
    idea="PPO in the latent space of a flow, which is fitted anew to what was good: the identity at first",
    departures="a decoder learns the better half of the last rollouts' actions, not all of episodes of their "
    "own; the latent policy begins at N(0, I); the critic, of standardised targets, outlives the stages",
)
@lru_cache
def gorl(config: GoRLConfig, spec: Spec) -> Method:
    """GoRL, whose `update` takes a `Rollout`. Equal arguments give the same method."""
    settings = (("config", config), ("spec", spec))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), NoDraw())
    explore, act = (Bound(_act, (*settings, ("explores", x))) for x in (True, False))
    return Method(learner, Policy(remembers_nothing, act), Policy(remembers_nothing, explore))
