"""Diffusion-QL (Wang, Hunt and Zhou 2022, arXiv 2208.06193): Q is maximised through the sampling chain.

Longer than other files by the table of what its authors tuned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.learning.candidates import repeated
from jdp.learning.critics import td_target
from jdp.learning.fitting import falling_rates
from jdp.learning.optimiser import clipped_adam
from jdp.policies import actions, actor_critic
from jdp.policies.actor_critic import ActorCriticConfig, ActorCriticState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, magnitude, mean_of, transitions
from jdp.registry import Preset, Task, register
from jdp.types import Guide, Method, Metrics, Params, Segments, Spec, Transition, named_keys


def _settings(eta: float, grad_norm: float, **others: Any) -> dict[str, Any]:
    return {"eta": eta, "grad_norm": grad_norm, **others}


# Rewards of the antmazes are 4 (r - 1/2) there, which only tasks without goals read.
_ANTMAZE = {"reward_scale": 4.0, "reward_shift": -2.0, "steps": 1_000_000}
_DIVERSE = {**_ANTMAZE, "max_q_backup": True}
# The authors also standardise the pens' rewards over the dataset: give reward_scale and reward_shift.
_PEN = {"learning_rate": 3e-5, "critic_learning_rate": 3e-5, "steps": 1_000_000}

# of D4RL's sets: the authors' search, in the paper's appendix and its code
DQL_SETTINGS: dict[str, dict[str, Any]] = {
    "halfcheetah-medium-v2": _settings(1.0, 9.0),
    "hopper-medium-v2": _settings(1.0, 9.0),
    "walker2d-medium-v2": _settings(1.0, 1.0),
    "halfcheetah-medium-replay-v2": _settings(1.0, 2.0),
    "hopper-medium-replay-v2": _settings(1.0, 4.0),
    "walker2d-medium-replay-v2": _settings(1.0, 4.0),
    "halfcheetah-medium-expert-v2": _settings(1.0, 7.0),
    "hopper-medium-expert-v2": _settings(1.0, 5.0),
    "walker2d-medium-expert-v2": _settings(1.0, 5.0),
    "antmaze-umaze-v0": _settings(0.5, 2.0, **_ANTMAZE),
    "antmaze-umaze-diverse-v0": _settings(2.0, 3.0, **_DIVERSE),
    "antmaze-medium-play-v0": _settings(2.0, 2.0, learning_rate=1e-3, critic_learning_rate=1e-3, **_DIVERSE),
    "antmaze-medium-diverse-v0": _settings(3.0, 1.0, **_DIVERSE),
    "antmaze-large-play-v0": _settings(4.5, 10.0, **_DIVERSE),
    "antmaze-large-diverse-v0": _settings(3.5, 7.0, **_DIVERSE),
    "pen-human-v1": _settings(0.15, 7.0, **_PEN),
    "pen-cloned-v1": _settings(0.1, 8.0, **_PEN),
    "kitchen-complete-v0": _settings(0.005, 9.0, steps=250_000),
    "kitchen-partial-v0": _settings(0.005, 10.0, steps=1_000_000),
    "kitchen-mixed-v0": _settings(0.005, 10.0, steps=1_000_000),
}
# Those of the antmazes were tuned on v0, whose files v2 mends.
DQL_SETTINGS |= {k.replace("-v0", "-v2"): v for k, v in DQL_SETTINGS.items() if k.startswith("antmaze")}


@dataclass(frozen=True)
class DQLConfig(ActorCriticConfig):
    """Settings of Diffusion-QL; the defaults are those of hopper-medium, `DQL_SETTINGS` has the others.

    The paper's actor is an MLP of three layers on 5 levels of DDPM; see `ActorConfig` for ours. Its
    average begins at once (the authors' after 1000 updates), with their decay of .995 every 5 updates.
    """

    eta: float = 1.0
    """Weight of Q against imitation."""
    max_q_backup: bool = False
    """Targets are of the best of `backup_actions` next actions."""
    backup_actions: int = 10
    """Next actions that are sampled for `max_q_backup`."""
    steps: int = 2_000_000
    """Updates over which both learning rates fall to 0 by a cosine."""
    grad_norm: float | None = 9.0
    """Largest norm of a gradient, of the actor's and of the critics'."""
    temperature: float = 1.0
    """An action is drawn from softmax(Q / temperature); 0: the best."""

    def critic_optimiser(self) -> optax.GradientTransformation:
        """The authors decay and clip the critics' steps too."""
        return clipped_adam(
            optax.cosine_decay_schedule(self.critic_learning_rate, self.steps), self.grad_norm
        )


def q_loss(coin: Array, q: Array, keep: Array) -> Array:
    """`-mean Q_i / stop(mean |Q_j|)` over the rows `keep` `[B]`, of `q` `[2, B]` (the paper's code).

    `coin` `[]` bool says which of the two is `Q_i`: the first where it is true.
    """
    one, other = jnp.where(coin, q[0], q[1]), jnp.where(coin, q[1], q[0])
    return -mean_of(one, keep) / magnitude(other, keep)


def next_value(key: Array, state: ActorCriticState, seen: Array, *, config: DQLConfig, spec: Spec) -> Array:
    """`[B]`, `min_j Q_j(s', a')` of the targets, `a'` of the averaged actor; `key` is consumed.

    With `max_q_backup` each `Q_j` is the largest over `backup_actions` actions.
    """
    count = config.backup_actions if config.max_q_backup else 1
    found = actions.candidates(key, state.actor.ema, seen, count, spec.action_dim, config)
    q = config.critic().apply(state.target_critic, repeated(seen, count), found)  # [2, B * count]
    return jnp.min(jnp.max(q.reshape(2, -1, count), axis=2), axis=0)


def actor_loss(
    key: Array, params: Params, critic: Params, step: Transition, keep: Array, config: DQLConfig
) -> tuple[Array, Metrics]:
    """`L_bc + eta L_q` (equation 3), the action of `L_q` sampled by the whole chain; `key` is consumed."""
    keys = named_keys(key, "level", "noise", "sample", "coin")
    sigma = actions.levels(keys["level"], keep.size, config)
    bc = actions.imitation_loss(keys["noise"], params, step.observation, step.action, sigma, keep, config)
    denoiser = actions.denoiser(params, step.observation, config)
    action = config.sampling().draw(keys["sample"], denoiser, step.action.shape)
    q = config.critic().apply(critic, step.observation, action)
    lq = q_loss(jax.random.bernoulli(keys["coin"]), q, keep)
    loss = bc + config.eta * lq
    return loss, {"actor_loss": loss, "bc_loss": bc, "q_loss": lq}


def _update(
    key: Array, state: ActorCriticState, batch: Segments, *, config: DQLConfig, spec: Spec
) -> tuple[ActorCriticState, Metrics]:
    keys = named_keys(key, "next", "actor")
    step, keep = transitions(batch, state.standardise, spec, config), imitated(batch, spec)
    following = next_value(keys["next"], state, step.next_observation, config=config, spec=spec)
    target = td_target(step.reward, step.terminal, following, config.discount)

    def loss(params: Params, critic: Params) -> tuple[Array, Metrics]:
        return actor_loss(keys["actor"], params, critic, step, keep, config)

    return actor_critic.learn(state, step, target, loss, config)


def presets(task: Task) -> Mapping[str, Preset]:
    """What the authors tuned for the dataset; the defaults where they tuned none."""
    return presets_of(DQLConfig(**DQL_SETTINGS.get(task.name, {})), task)


@register(
    "policy",
    "dql",
    DQLConfig,
    presets,
    title="Diffusion-QL",
    paper="arXiv 2208.06193",
    idea="the gradient of Q flows through the denoising",
    departures="observations are standardised over the dataset, where the authors' code takes them as they "
    "are; acts by the averaged weights, which begin at once",
    fit=falling_rates,
)
@lru_cache
def dql(config: DQLConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """Diffusion-QL as a policy; equal arguments give the same one.

    It acts by the averaged weights, where the authors' code takes the last ones.
    """
    return actor_critic.one_step_method(actor_critic.init, _update, actor_critic.act, config, spec, guide)
