"""Conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779): CQL(H) with importance sampling, on SAC."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jdp.agents.conservative import check_conservative, soft_maximum
from jdp.agents.presets import presets_of
from jdp.agents.sac import SACConfig, SACState, sac_init, sac_target, sac_update
from jdp.learning.actors import actor_method
from jdp.learning.optimiser import Trained, begin, descend
from jdp.registry import Preset, Task, register
from jdp.types import Method, Metrics, Spec, TanhNormal, Transition

WEIGHT_LIMIT = 1e6  # of the Lagrange multiplier, as in the authors' code


@dataclass(frozen=True)
class CQLConfig(SACConfig):
    """Settings of CQL; the defaults are those for locomotion."""

    conservative_weight: float = 10.0  # of the whole term (alpha in the paper)
    temperature: float = 1.0  # of the soft maximum over actions
    actions: int = 10  # of each kind: uniform, pi(s), pi(s')
    target_gap: float | None = None  # tau in the paper: a multiplier is learned that holds the gap there
    gap_range: tuple[float, float] | None = None  # a row's gap is clipped to it
    actor_learning_rate: float = 3e-5
    alpha_learning_rate: float = 3e-5
    hidden: tuple[int, ...] = (256, 256, 256)
    initialiser: str = "orthogonal"
    backup_entropy: bool = False
    normalise_observations: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_conservative(self)


class CQLState(NamedTuple):
    """The state of SAC and the Lagrange multiplier."""

    sac: SACState
    log_multiplier: Trained  # parameters []; stays 0 without `target_gap`


def _multiplier(log_multiplier: Array) -> Array:
    return jnp.clip(jnp.exp(log_multiplier), 0, WEIGHT_LIMIT)


def _multiplier_loss(log_multiplier: Array, gap: Array, config: CQLConfig) -> tuple[Array, Metrics]:
    """Gradient ascent in the multiplier of `gap - target_gap`; `gap` is the critics' mean."""
    value = _multiplier(log_multiplier)
    target = 0.0 if config.target_gap is None else config.target_gap
    return -config.conservative_weight * value * (gap - target), {"multiplier": value}


def _optimiser(config: CQLConfig) -> optax.GradientTransformation:
    return optax.adam(config.critic_learning_rate, eps=config.adam_eps)


def _init(key: Array, transitions: Transition, *, config: CQLConfig, spec: Spec) -> CQLState:
    state = sac_init(key, transitions, config=config, spec=spec)
    return CQLState(state, begin(_optimiser(config), jnp.zeros((), jnp.float32)))


def _update(
    key: Array, state: CQLState, batch: Transition, *, config: CQLConfig, spec: Spec
) -> tuple[CQLState, Metrics]:
    """An update of SAC with `weight * (soft maximum - Q(s, a))` of every critic in their loss (equation 4).

    With `target_gap` the gap's excess over it is weighted by the multiplier too, which moves afterwards.
    """
    lagrange = config.target_gap is not None
    multiplier = _multiplier(state.log_multiplier.params) if lagrange else 1.0

    def penalty(params, critic, key, batch, actor):
        high = soft_maximum(
            params, critic, key, batch, actor, actions=config.actions, temperature=config.temperature
        )
        gap = high - critic.apply(params, batch.observation, batch.action)  # [N, B]
        if config.gap_range is not None:
            gap = jnp.clip(gap, *config.gap_range)
        gap = jnp.mean(gap, axis=1)
        # Less the target, by which a Lagrangian differs, only for a constant: no gradient knows it.
        loss = config.conservative_weight * multiplier * jnp.sum(gap)
        return loss, {"conservative_gap": jnp.mean(gap)}

    new, metrics = sac_update(key, state.sac, batch, config=config, spec=spec, penalty=penalty)
    if not lagrange:
        return CQLState(new, state.log_multiplier), metrics
    log_multiplier, more = descend(
        _optimiser(config), state.log_multiplier, _multiplier_loss, metrics["conservative_gap"], config
    )
    return CQLState(new, log_multiplier), {**metrics, **more}


def _target(state: CQLState, observation: Array, *, config: CQLConfig, spec: Spec) -> TanhNormal:
    return sac_target(state.sac, observation, config=config, spec=spec)


def presets(task: Task) -> Mapping[str, Preset]:
    """The same for all datasets."""
    del task
    return presets_of(CQLConfig(), smaller={"hidden": (256, 256), "actions": 4})


@register(
    "agent",
    "cql",
    CQLConfig,
    presets,
    title="CQL",
    paper="arXiv 2006.04779",
    idea="SAC whose critics are pushed down at unseen actions",
    departures="the last layers begin with the orthogonal gain of the others, sqrt 2, where the authors' "
    "code takes .01; the log std has no learned multiplier and no offset of -1, and its range is -5 to 2 "
    "for -20 to 2: the policy begins wider and further from 0",
)
@lru_cache
def cql(config: CQLConfig, spec: Spec) -> Method:
    """CQL; one minibatch an update. Equal arguments give the same method."""
    return actor_method(_init, _update, _target, config, spec)
