"""TD3 (Fujimoto, van Hoof and Meger 2018, arXiv 1802.09477) that acts, of the parts in `jdp.agents.td3`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents import td3
from jdp.agents.td3 import TD3Config, TD3State
from jdp.learning.acting import OffPolicyConfig
from jdp.learning.actors import actor_method, decided_anew, deterministic, remembers_nothing
from jdp.learning.critics import first
from jdp.online.presets import off_policy_presets
from jdp.registry import Preset, Task, register
from jdp.types import Bound, Decision, Method, Metrics, Normal, Params, Policy, Spec, Target, Transition


@dataclass(frozen=True)
class OnlineTD3Config(TD3Config):
    """Settings of TD3; the defaults are those of the paper."""

    acting: OffPolicyConfig = field(default_factory=lambda: OffPolicyConfig(updates=1))
    """Steps, buffer and updates; an update is two critic steps and one actor step."""
    exploration: float = 0.1
    """Standard deviation of what is added to actions while it collects."""


def _actor_loss(
    params: Params, q_params: Params, batch: Transition, *, networks: td3.Networks
) -> tuple[Array, Metrics]:
    action = deterministic(params, networks.actor, batch.observation).mean
    loss = -jnp.mean(networks.critic.apply(first(q_params), batch.observation, action)[0])
    return loss, {"actor_loss": loss}


def _init(key: Array, transitions: Transition, *, config: OnlineTD3Config, spec: Spec) -> TD3State:
    return td3.init(key, transitions, td3.plain_networks(config, spec), config, spec)


def _update(
    key: Array, state: TD3State, batch: Transition, *, config: OnlineTD3Config, spec: Spec
) -> tuple[TD3State, Metrics]:
    networks = td3.plain_networks(config, spec)
    return td3.update(key, state, batch, partial(_actor_loss, networks=networks), networks, config)


def _target(state: TD3State, observation: Array, *, config: OnlineTD3Config, spec: Spec) -> Normal:
    return td3.target(state, observation, td3.plain_networks(config, spec))


def _explore(
    key: Array,
    state: TD3State,
    carry: tuple[()],
    observation: Array,
    goal: Array,
    *,
    target: Target,
    std: float,
) -> tuple[tuple[()], Decision]:
    del goal
    mean = target(state, observation).mean
    return carry, decided_anew(jnp.clip(mean + std * jax.random.normal(key, mean.shape), -1.0, 1.0))


def presets(task: Task) -> Mapping[str, Preset]:
    """The paper's, and smaller ones."""
    return off_policy_presets(OnlineTD3Config(), task, ("learning_rate",))


@register(
    "online",
    "td3",
    OnlineTD3Config,
    presets,
    title="TD3",
    paper="arXiv 1802.09477",
    idea="a deterministic actor, the lower of two critics, and targets that move slowly",
    departures="an update is two critic steps and one actor step: twice the paper's critic steps",
)
@lru_cache
def online_td3(config: OnlineTD3Config, spec: Spec) -> Method:
    """TD3, whose `update` takes two minibatches of transitions. Equal arguments give the same method."""
    found = actor_method(_init, _update, _target, config, spec, minibatches=td3.CRITIC_STEPS)
    assert found.target is not None
    explore = Bound(_explore, (("std", config.exploration), ("target", found.target)))
    return found._replace(behaviour=Policy(remembers_nothing, explore))
