"""TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), on TD3 (Fujimoto et al. 2018, arXiv 1802.09477)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax import Array

from jdp.agents import td3
from jdp.agents.presets import presets_of
from jdp.agents.td3 import TD3Config, TD3State
from jdp.learning.actors import actor_method, deterministic
from jdp.learning.critics import first
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Normal, Params, Spec, Transition


@dataclass(frozen=True)
class TD3BCConfig(TD3Config):
    """Settings of TD3+BC; the defaults are those of the paper (table 1)."""

    alpha: float = 2.5  # weight of Q against behaviour cloning
    normalise_observations: bool = True


def actor_loss(
    params: Params,
    q_params: Params,
    batch: Transition,
    *,
    networks: td3.Networks,
    alpha: float,
    pull: Array | None = None,
) -> tuple[Array, Metrics]:
    """`-lambda Q_1(s, pi(s)) + (pi(s) - a)^2` with `lambda = alpha / mean |Q_1|` (equations 3 to 5).

    `pull` `[B]` multiplies the rows of the square; None: all by 1.
    """
    action = deterministic(params, networks.actor, batch.observation).mean
    q = networks.critic.apply(first(q_params), batch.observation, action)[0]  # [B]
    weight = alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    # The mean is over action dimensions too, as in the authors' code; the paper writes the squared norm.
    error = jnp.square(action - batch.action)
    bc = jnp.mean(error if pull is None else pull[:, None] * error)
    loss = -weight * jnp.mean(q) + bc
    return loss, {"actor_loss": loss, "bc_loss": bc, "q_weight": weight}


def _init(key: Array, transitions: Transition, *, config: TD3BCConfig, spec: Spec) -> TD3State:
    return td3.init(key, transitions, td3.plain_networks(config, spec), config, spec)


def _update(
    key: Array, state: TD3State, batch: Transition, *, config: TD3BCConfig, spec: Spec
) -> tuple[TD3State, Metrics]:
    """See `td3.update`; `key` is consumed."""
    networks = td3.plain_networks(config, spec)
    return td3.update(
        key, state, batch, partial(actor_loss, networks=networks, alpha=config.alpha), networks, config
    )


def _target(state: TD3State, observation: Array, *, config: TD3BCConfig, spec: Spec) -> Normal:
    return td3.target(state, observation, td3.plain_networks(config, spec))


def presets(task: Task) -> Mapping[str, Preset]:
    """The same for all datasets; the paper's 1,000,000 critic steps are half as many updates."""
    del task
    return presets_of(TD3BCConfig(), updates=500_000)


@register(
    "agent",
    "td3_bc",
    TD3BCConfig,
    presets,
    title="TD3+BC",
    paper="arXiv 2106.06860, on TD3 arXiv 1802.09477",
    idea="TD3 whose actor is also pulled to the data",
    departures="the squared distance is a mean over action dimensions too, as in the code; an update is two "
    "critic steps and one actor step, so `paper` makes 500,000 updates",
)
@lru_cache
def td3_bc(config: TD3BCConfig, spec: Spec) -> Method:
    """TD3+BC, whose `update` takes a batch of `2 B` rows: one minibatch a critic step.

    An update is two steps of the authors' loop (`policy_freq` 2), in their order. Its actor is
    deterministic: `target` gives a `Normal` with `std` zero. Equal arguments give the same method.
    """
    return actor_method(_init, _update, _target, config, spec, minibatches=td3.CRITIC_STEPS)
