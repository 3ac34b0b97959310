"""One diffusion model that is a policy, a world model and an inverse model (arXiv 2504.02792).

Longer than other files, for it answers four questions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import losses
from jdp.networks.conditional_mlp import conditioned
from jdp.registry import register
from jdp.types import (
    Bound,
    Denoiser,
    Learner,
    Metrics,
    Network,
    Params,
    Spec,
    Transition,
    WorldModel,
    named_keys,
)
from jdp.world_models import diffusion
from jdp.world_models.coordinates import Statistics, decode_outcome, encode_change, encode_outcome
from jdp.world_models.diffusion import DiffusionModelConfig, DiffusionModelState
from jdp.world_models.history import History, HistoryDraw, as_history, present
from jdp.world_models.parts import Parts, check_shares, conditional, entrywise, levels_apart, parts
from jdp.world_models.termination import Rule


@dataclass(frozen=True)
class UnifiedConfig(DiffusionModelConfig):
    """Network, training and sampling of the unified model.

    At `sigma_max` a part says nothing. 10 steps of Euler would narrow a unit Gaussian by 22 %.
    """

    clean: float = 0.2
    """Share of training rows in which a part is known (level 0), for each part."""
    noised: float = 0.2
    """Share of training rows in which a part is hidden (level `sigma_max`), for each part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self)


class Unified(NamedTuple):
    """One denoiser of `[action, change of the observation, reward, terminal flag]`, asked in four ways.

    Everything is in the units of the task but `denoiser`; actions lie within [-1, 1].
    """

    learner: Learner
    denoiser: Callable[[DiffusionModelState, Array], Denoiser]
    # denoiser(state, observation [B, O]): of standardised x [B, A + O + 2], sigma [], [B] or [B, A + O + 2]
    policy: Callable[[Array, DiffusionModelState, Array], Array]
    # policy(key, state, observation [B, O]) -> action [B, A], of the data's behaviour
    forward: Callable[[Array, DiffusionModelState, Array, Array], tuple[Array, Array, Array]]
    # forward(key, state, observation, action) -> next observation [B, O], reward [B], terminal [B] (0 or 1)
    inverse: Callable[[Array, DiffusionModelState, Array, Array], Array]
    # inverse(key, state, observation, next observation) -> action [B, A]
    joint: Callable[[Array, DiffusionModelState, Array], tuple[Array, Array, Array, Array]]
    # joint(key, state, observation) -> action and what `forward` returns, drawn together


# --- training ------------------------------------------------------------------------------------


def _network(config: UnifiedConfig, spec: Spec) -> Network:
    a, o = spec.action_dim, spec.observation_dim
    return config.network((0, a, a + o))


def _init(
    key: Array, transitions: Transition | History, *, config: UnifiedConfig, spec: Spec
) -> DiffusionModelState:
    x = jnp.zeros((1, spec.action_dim + spec.observation_dim + 2))
    params = _network(config, spec).init(key, x, x, jnp.zeros((1, spec.observation_dim)))
    return diffusion.begin(config, params, transitions, spec)


def levels(key: Array, config: UnifiedConfig, spec: Spec, count: int) -> Array:
    """`[count, D]` training levels, one for each part of a row; the key is consumed.

    Each part is clean, hidden or at a log-normal level, independently of the others. But the reward and
    the flag mostly follow the observation's level, as in `forward` and `joint`, and are hidden in
    the rest, as in `inverse`.
    """
    keys = named_keys(key, "level", "kind", "reward")
    level = levels_apart(keys, count, 2, config)
    reward = jax.random.uniform(keys["reward"], (count,)) < config.noised
    reward = jnp.where(reward, config.sigma_max, level[:, 1])
    widths = (spec.action_dim, spec.observation_dim, 2)
    return entrywise(jnp.concatenate([level, reward[:, None]], axis=1), widths)


def _decode_action(s: Statistics, x: Array) -> Array:
    return jnp.clip(s.action.inverse(x), -1.0, 1.0)


def _update(
    key: Array, state: DiffusionModelState, batch: Transition | History, *, config: UnifiedConfig, spec: Spec
) -> tuple[DiffusionModelState, Metrics]:
    keys = named_keys(key, "level", "noise")
    data, s = as_history(batch), state.statistics
    outcome = encode_outcome(s, data, flag=True)
    x0 = jnp.concatenate([s.action(data.actions[:, -1]), outcome], axis=-1)
    condition = s.observation(data.observations[:, -1])
    sigma = levels(keys["level"], config, spec, x0.shape[0])
    apply = conditioned(_network(config, spec).apply)

    def loss(params: Params) -> tuple[Array, Metrics]:
        return losses.denoising_at(keys["noise"], apply, (params, condition), x0, sigma)

    return diffusion.descend(config, state, loss)


# --- the four questions --------------------------------------------------------------------------


def _denoiser(
    state: DiffusionModelState, observation: Array, *, config: UnifiedConfig, spec: Spec
) -> Partial:
    condition = state.statistics.observation(observation)
    return diffusion.denoiser_of(_network(config, spec), state, condition)


def _sample(
    key: Array,
    state: DiffusionModelState,
    observation: Array,
    known: dict[str, Array],
    hidden: tuple[str, ...],
    config: UnifiedConfig,
    spec: Spec,
) -> Array:
    """`[B, A + O + 2]`, given the standardised parts in `known`."""
    part, widths = parts(spec), (spec.action_dim, spec.observation_dim, 2)
    batch, masks = observation.shape[0], part._asdict()
    fields = [known.get(name, jnp.zeros((batch, n))) for name, n in zip(Parts._fields, widths, strict=True)]
    nothing = np.zeros(sum(widths), bool)
    return conditional(
        key,
        _denoiser(state, observation, config=config, spec=spec),
        jnp.concatenate(fields, axis=-1),
        np.logical_or.reduce([nothing, *(masks[name] for name in known)]),
        np.logical_or.reduce([nothing, *(masks[name] for name in hidden)]),
        config.sampling().sigmas(),
        sampler=config.sampler,
    )


def _policy(
    key: Array, state: DiffusionModelState, observation: Array, *, config: UnifiedConfig, spec: Spec
) -> Array:
    x = _sample(key, state, observation, {}, ("change", "reward"), config, spec)
    return _decode_action(state.statistics, x[:, : spec.action_dim])


def _inverse(
    key: Array,
    state: DiffusionModelState,
    observation: Array,
    next_observation: Array,
    *,
    config: UnifiedConfig,
    spec: Spec,
) -> Array:
    change = encode_change(state.statistics, observation, next_observation)
    x = _sample(key, state, observation, {"change": change}, ("reward",), config, spec)
    return _decode_action(state.statistics, x[:, : spec.action_dim])


def _forward(
    key: Array,
    state: DiffusionModelState,
    observation: Array,
    action: Array,
    *,
    config: UnifiedConfig,
    spec: Spec,
    rule: Rule | None = None,
) -> tuple[Array, Array, Array]:
    known = {"action": state.statistics.action(action)}
    x = _sample(key, state, observation, known, (), config, spec)
    outcome = x[:, spec.action_dim :]
    return decode_outcome(state.statistics, outcome, observation, action, rule)


def _joint(
    key: Array, state: DiffusionModelState, observation: Array, *, config: UnifiedConfig, spec: Spec
) -> tuple[Array, Array, Array, Array]:
    x = _sample(key, state, observation, {}, (), config, spec)
    action = _decode_action(state.statistics, x[:, : spec.action_dim])
    outcome = x[:, spec.action_dim :]
    return action, *decode_outcome(state.statistics, outcome, observation, action, None)


@lru_cache
def unified(config: UnifiedConfig, spec: Spec) -> Unified:
    """A unified world model for vectors (arXiv 2504.02792), with EDM's denoiser (arXiv 2206.00364).

    One network denoises the action, the change of the observation, and reward with terminal flag, given
    the observation, with a noise level for each of the three parts. A part at level 0 is a
    condition, a part at `sigma_max` is unknown; so one training serves `policy` p(a | o), `forward`
    p(o', r | o, a), `inverse` p(a | o, o') and `joint` p(a, o', r | o), each a `hold` and a sampler.

    Actions are standardised as they are and not before a tanh: a next state is a smooth function of
    them, also at the limits. Draws are clipped to the box. Equal arguments give the same functions.
    """
    settings: tuple[tuple[str, Any], ...] = (("config", config), ("spec", spec))
    init, update, *asked = (
        Bound(function, settings)
        for function in (_init, _update, _denoiser, _policy, _forward, _inverse, _joint)
    )
    draw = HistoryDraw(spec.observation_dim, spec.action_dim)
    return Unified(Learner(init, update, draw), *asked)


def _step(
    key: Array,
    state: DiffusionModelState,
    carry: Array,
    action: Array,
    *,
    config: UnifiedConfig,
    spec: Spec,
    rule: Rule | None,
) -> tuple[Array, Array, Array, Array]:
    out = _forward(key, state, carry, action, config=config, spec=spec, rule=rule)
    return out[0], *out


@register(
    "world_model",
    "unified",
    UnifiedConfig,
    diffusion.presets_of(UnifiedConfig),
    title="Unified world model",
    paper="UWM arXiv 2504.02792",
    idea="one denoiser with a noise level each for action, next state and reward: four models in one",
    departures="of vectors; EDM's denoiser",
)
@lru_cache
def unified_world_model(config: UnifiedConfig, spec: Spec, rule: Rule | None = None) -> WorldModel:
    """`unified(config, spec).forward` as a world model with `history` 1; it shares the state.

    `rule` is that of `diffusion_step`; with None the generated flag says where an episode ends.
    """
    settings: tuple[tuple[str, Any], ...] = (("config", config), ("spec", spec), ("rule", rule))
    return WorldModel(unified(config, spec).learner, start=present, step=Bound(_step, settings))
