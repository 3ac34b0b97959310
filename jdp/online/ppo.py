"""PPO (Schulman et al. 2017, arXiv 1707.06347) with a Gaussian actor: the on-policy baseline."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data.draws import NoDraw
from jdp.errors import UserError, check_settings
from jdp.learning.acting import OnPolicyConfig
from jdp.learning.actors import decided_anew, gaussian_params, mean_policy, remembers_nothing
from jdp.learning.optimiser import Trained, begin
from jdp.learning.ppo import (
    MinibatchLoss,
    PPOConfig,
    clipped_surrogate,
    epochs,
    flat,
    judged,
    normalised,
    with_value_loss,
)
from jdp.learning.running import RunningMoments, no_moments, seen
from jdp.networks.mlp import mlp
from jdp.networks.shared import shared
from jdp.online.presets import TOYS
from jdp.registry import Preset, Task, register
from jdp.tasks.simulators import tuned
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
class PPOAgentConfig(PPOConfig):
    """Settings of PPO."""

    acting: OnPolicyConfig = field(default_factory=lambda: OnPolicyConfig(environments=1, steps=2048))
    """A rollout."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the actor and of the critic."""
    entropy_weight: float = 0.0
    """Of the policy's entropy, which is a reward."""
    log_std: float = 0.0
    """Of the policy before training, on each axis."""
    agents: int = 1
    """Equal parts of an observation, each of which decides its part of the action, by one actor; the critic
    sees all of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(type(self).__name__, agents=(self.agents, 1, 1_000_000))


class PPOState(NamedTuple):
    """The actor and the critic, and by what observations and values are standardised."""

    trained: Trained  # parameters {"actor", "critic"}
    observations: RunningMoments  # [O]
    targets: RunningMoments  # [1], of the critic


class Rows(NamedTuple):
    """A rollout as minibatches see it, `[B, ...]`."""

    observation: Array  # standardised
    action: Array
    log_prob: Array
    advantage: Array
    target: Array  # standardised


def _networks(config: PPOAgentConfig, spec: Spec) -> tuple[Network, Network]:
    net = partial(mlp, initialiser="orthogonal", activation="tanh")
    actor = net((*config.hidden, spec.action_dim // config.agents), last_limit=3e-3)
    actor = actor if config.agents == 1 else shared(actor, config.agents)
    return actor, net((*config.hidden, 1), last_limit=0.1)


def _at(params: Params, observation: Array, actor: Network) -> Normal:
    """The policy at standardised observations `[..., O]`; its actions are clipped by the task alone."""
    mean = actor.apply(params["mean"], observation)
    return Normal(mean, jnp.broadcast_to(jnp.exp(params["log_std"]), mean.shape))


def _init(key: Array, data: PyTree, *, config: PPOAgentConfig, spec: Spec) -> PPOState:
    del data
    keys, (actor, critic) = named_keys(key, "actor", "critic"), _networks(config, spec)
    own = gaussian_params(keys["actor"], actor, spec)
    own = {**own, "log_std": own["log_std"] + config.log_std}
    params = {"actor": own, "critic": critic.init(keys["critic"], jnp.zeros(spec.observation_dim))}
    return PPOState(begin(config.optimiser(), params), no_moments(spec.observation_dim), no_moments(1))


def _loss(params: Params, rows: Rows, *, config: PPOAgentConfig, spec: Spec) -> tuple[Array, Metrics]:
    actor, critic = _networks(config, spec)
    pi = _at(params["actor"], rows.observation, actor)
    advantage = normalised(rows.advantage)
    loss, metrics = clipped_surrogate(pi.log_prob(rows.action), rows.log_prob, advantage, config.clip)
    entropy = jnp.sum(params["actor"]["log_std"]) + spec.action_dim * 0.5 * jnp.log(2 * jnp.pi * jnp.e)
    loss, metrics = loss - config.entropy_weight * entropy, {**metrics, "entropy": entropy}
    value = critic.apply(params["critic"], rows.observation)[:, 0]
    return with_value_loss(loss, metrics, value, rows.target, config.value_weight)


def learn(
    key: Array,
    state: PPOState,
    rollout: Rollout,
    action: Array,
    critic: Network,
    loss: MinibatchLoss,
    config: PPOConfig,
) -> tuple[PPOState, Array, Metrics]:
    """One update on a rollout `[T, N]`, and its advantages `[T, N]`; the key is consumed.

    Args:
        action: `[T, N, D]`, what the actor drew, of the `log_prob` "action".
        critic: of standardised observations `[..., O]` to `[..., 1]`.
        loss: of minibatches of `Rows`.
    """
    shown = state.observations.affine()

    def value(observation: Array, goal: Array) -> Array:
        del goal
        return critic.apply(state.trained.params["critic"], shown(observation))[..., 0]

    found = judged(rollout, state.targets, value, config)
    assert rollout.decision.log_prob is not None
    steps = Rows(
        observation=shown(rollout.observation),
        action=action,
        log_prob=rollout.decision.log_prob["action"],
        advantage=found.advantage,
        target=found.target,
    )
    rows = flat(steps)
    trained, metrics = epochs(key, state.trained, rows, loss, config)
    observations = seen(state.observations, rollout.observation)
    return PPOState(trained, observations, found.moments), found.advantage, metrics


def _update(
    key: Array, state: PPOState, rollout: Rollout, *, config: PPOAgentConfig, spec: Spec
) -> tuple[PPOState, Metrics]:
    _, critic = _networks(config, spec)
    loss, action = partial(_loss, config=config, spec=spec), rollout.decision.action
    state, _, metrics = learn(key, state, rollout, action, critic, loss, config)
    return state, metrics


def _target(state: PPOState, observation: Array, *, config: PPOAgentConfig, spec: Spec) -> Normal:
    shown = state.observations.affine()(observation)
    return _at(state.trained.params["actor"], shown, _networks(config, spec)[0])


def _explore(
    key: Array, state: PPOState, carry: tuple[()], observation: Array, goal: Array, *, target: Bound
) -> tuple[tuple[()], Decision]:
    del goal
    pi = target(state, observation)
    action = pi.sample(key)
    return carry, decided_anew(action)._replace(log_prob={"action": pi.log_prob(action)})


def presets(task: Task) -> Mapping[str, Preset]:
    """Rollouts of 2,048 steps of one environment in the paper; of many in tasks that run in JAX."""
    cpu, updates = PPOAgentConfig(acting=OnPolicyConfig(16, 128)), 150
    if task.dataset in TOYS:
        cpu, updates = replace(cpu, learning_rate=1e-3, discount=0.9, target_kl=0.03), 60
    elif task.dataset == tuned.ENV_ID:
        acting, passes = OnPolicyConfig(environments=64, steps=50), {"epochs": 5, "minibatches": 4}
        cpu = replace(cpu, acting=acting, learning_rate=3e-3, discount=0.95, trace=0.8, **passes)
        cpu, updates = replace(cpu, agents=tuned.TWO.agents, log_std=-1.0), 120
    elif task.maze is not None:
        cpu, updates = (
            replace(cpu, acting=OnPolicyConfig(128, 64), learning_rate=1e-3, hidden=(128, 128)),
            300,
        )
    tiny = replace(cpu, hidden=(32, 32), acting=OnPolicyConfig(4, 32), epochs=2, minibatches=4)
    return {
        "smoke": Preset(tiny, updates=8, batch_size=0, seeds=2),
        "cpu": Preset(cpu, updates=updates, batch_size=0, seeds=3),
        "paper": Preset(PPOAgentConfig(), updates=500, batch_size=0, seeds=5),
    }


@register(
    "online",
    "ppo",
    PPOAgentConfig,
    presets,
    title="PPO",
    paper="arXiv 1707.06347",
    idea="clipped ratios of the policy that has just acted",
    departures="observations and the critic's targets are standardised by all that was seen; the learning "
    "rate is constant",
)
@lru_cache
def ppo(config: PPOAgentConfig, spec: Spec) -> Method:
    """PPO, whose `update` takes a `Rollout`. Equal arguments give the same method.

    Raises:
        UserError: if observations or actions cannot be cut into `config.agents` equal parts.
    """
    if spec.observation_dim % config.agents or spec.action_dim % config.agents:
        raise UserError(
            f"PPOAgentConfig.agents is {config.agents}: the {spec.observation_dim} observations and "
            f"{spec.action_dim} actions of {spec.env_id} cannot be cut into so many equal parts"
        )
    settings = (("config", config), ("spec", spec))
    at = Bound(_target, settings)
    behaviour = Policy(remembers_nothing, Bound(_explore, (("target", at),)))
    learner = Learner(Bound(_init, settings), Bound(_update, settings), NoDraw())
    return Method(learner, mean_policy(at), behaviour, at)
