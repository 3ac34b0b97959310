"""IDQL (Hansen-Estruch et al. 2023, arXiv 2304.10573): IQL's critics choose among a diffusion's samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jdp.data import SegmentRows
from jdp.errors import check_settings
from jdp.learning.critics import TwinCriticConfig, lower_q, td_target, value_loss
from jdp.learning.fitting import falling_rates_and_scaled_rewards
from jdp.learning.optimiser import begin, descend
from jdp.networks.mlp import mlp
from jdp.policies import actions, actor_critic
from jdp.policies.actor_critic import ActorCriticConfig, ActorCriticState
from jdp.policies.presets import presets_of
from jdp.policies.relabelled import imitated, transitions
from jdp.registry import Preset, Task, register
from jdp.types import Guide, Method, Metrics, Network, Params, Segments, Spec, Transition, named_keys

_ANTMAZE = {"expectile": 0.9, "candidates": 32, "reward_shift": -1.0}
IDQL_SETTINGS: dict[str, dict[str, Any]] = {
    f"antmaze-{maze}-v{version}": _ANTMAZE
    for maze in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse")
    for version in (0, 2)
}


@dataclass(frozen=True)
class ValueConfig(TwinCriticConfig):
    """IQL's critics (arXiv 2110.06169): two Q networks, and V by expectiles of them."""

    expectile: float = 0.7
    """Of V among the values of the data's actions."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of the critics and of V."""
    critic_activation: str = "relu"
    """One of `jdp.networks.mlp.ACTIVATIONS`."""

    def value(self) -> Network:
        """`apply(params, seen [..., C]) -> [..., 1]`."""
        return mlp(
            (*self.critic_hidden, 1), activation=self.critic_activation, layer_norm=self.critic_layer_norm
        )

    def check_expectile(self) -> None:
        """Raises `UserError` unless the expectile is a share."""
        check_settings(type(self).__name__, expectile=(self.expectile, 0, 1))


@dataclass(frozen=True)
class IDQLConfig(ValueConfig, ActorCriticConfig):
    """Settings of IDQL; the defaults are those for locomotion, `IDQL_SETTINGS` has the antmazes'.

    Locomotion's rewards are scaled by `jdp.learning.fitting.reward_scale(returns)` there (`reward_scale`).
    """

    steps: int = 3_000_000
    """Updates over which the actor's learning rate falls to 0 by a cosine."""
    candidates: int = 128
    """Actions that are sampled for each that is executed."""

    def __post_init__(self) -> None:
        ActorCriticConfig.__post_init__(self)
        self.check_expectile()


def init(key: Array, rows: SegmentRows, *, config: Any, spec: Spec) -> ActorCriticState:
    """The state before training, with V, of a config that has an actor beside `ValueConfig`."""
    keys = named_keys(key, "actor_critic", "value")
    state = actor_critic.init(keys["actor_critic"], rows, config=config, spec=spec)
    value = config.value().init(keys["value"], jnp.zeros(spec.observation_dim + len(spec.goal)))
    return state._replace(value=begin(config.critic_optimiser(), value))


class Judged(NamedTuple):
    """What the critics say of a batch, V one step on."""

    state: ActorCriticState
    advantage: Array  # [B], of the data's actions: the lower target Q less V
    target: Array  # [B], of Q
    metrics: Metrics


def judge(state: ActorCriticState, step: Transition, config: ValueConfig) -> Judged:
    """One step of V on expectiles of the target critics, and what the critics learn from it."""
    q = lower_q(state.target_critic, step.observation, step.action, config)
    assert state.value is not None  # init made it
    value, metrics = descend(
        config.critic_optimiser(),
        state.value,
        partial(value_loss, value=config.value(), expectile=config.expectile),
        step.observation,
        q,
    )
    now, following = (
        config.value().apply(value.params, seen)[..., 0] for seen in (step.observation, step.next_observation)
    )
    target = td_target(step.reward, step.terminal, following, config.discount)
    return Judged(state._replace(value=value), q - now, target, metrics)


def _update(
    key: Array, state: ActorCriticState, batch: Segments, *, config: IDQLConfig, spec: Spec
) -> tuple[ActorCriticState, Metrics]:
    """V by expectiles of the target critics, the critics towards V, and the actor by imitation alone."""
    keys = named_keys(key, "level", "noise")
    step, keep = transitions(batch, state.standardise, spec, config), imitated(batch, spec)
    judged = judge(state, step, config)

    def loss(params: Params, critic: Params) -> tuple[Array, Metrics]:
        del critic
        sigma = actions.levels(keys["level"], keep.size, config)
        bc = actions.imitation_loss(keys["noise"], params, step.observation, step.action, sigma, keep, config)
        return bc, {"bc_loss": bc}

    state, metrics = actor_critic.learn(judged.state, step, judged.target, loss, config)
    return state, {**judged.metrics, **metrics}


def presets(task: Task) -> Mapping[str, Preset]:
    """What the authors tuned for the dataset; the defaults where they tuned none."""
    return presets_of(IDQLConfig(**IDQL_SETTINGS.get(task.name, {})), task)


@register(
    "policy",
    "idql",
    IDQLConfig,
    presets,
    title="IDQL",
    paper="arXiv 2304.10573",
    idea="IQL's critics choose among cloned actions",
    departures="observations are standardised over the dataset, where the authors' code takes them as they "
    "are; no dropout",
    fit=falling_rates_and_scaled_rewards,
)
@lru_cache
def idql(config: IDQLConfig, spec: Spec, *, guide: Guide | None = None) -> Method:
    """IDQL as a policy; equal arguments give the same one.

    It takes the sample of the largest `min_j Q_j` (the paper's choice at evaluation); `temperature` above 0
    draws among them. The denoiser is `ActorConfig`'s, without the dropout of the authors' network.
    """
    return actor_critic.one_step_method(init, _update, actor_critic.act, config, spec, guide)
