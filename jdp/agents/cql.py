"""Conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779): CQL(H) with importance sampling, on SAC."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.agents import common
from jdp.agents.common import Learner
from jdp.agents.sac import Actor, SACConfig, SACState, sac_act, sac_init, sac_update
from jdp.types import Agent, Bound, Metrics, Network, Params, Spec, TanhNormal, Transition, named_keys

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
    log_multiplier: Learner  # parameters []; stays 0 without `target_gap`


def check_conservative(config) -> None:
    """Checks the settings of the conservative term, which COMBO shares."""
    common.check_settings(
        type(config).__name__,
        conservative_weight=(config.conservative_weight, 0, 1e9),
        temperature=(config.temperature, 1e-6, 1e6),
        actions=(config.actions, 1, 1000),
    )


def _draws(policy: TanhNormal, key: Array, count: int) -> tuple[Array, Array]:
    """`count` draws `[count, B, A]` of a policy `[B]`, and their log densities `[count, B]`."""
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), policy)
    return many.sample_and_log_prob(key)


def soft_maximum(
    params: Params,
    critic: Network,
    key: Array,
    batch: Transition,
    actor: Actor,
    *,
    actions: int,
    temperature: float,
) -> Array:
    """`[N, B]`, `T log sum_k exp((Q(s, a_k) - log p(a_k)) / T)`: every critic's soft maximum at `s`.

    `a_k` are `actions` draws each from the box, from pi(s) and from pi(s'), all of them evaluated at `s`.
    As in the authors' code the sum is no mean: that would change it by a constant.
    Gradients flow into Q at all the draws, which is what pushes them down.
    """
    keys = named_keys(key, "uniform", "here", "next")
    uniform = jax.random.uniform(keys["uniform"], (actions, *batch.action.shape), minval=-1.0)
    flat = jnp.full(uniform.shape[:-1], -math.log(2) * batch.action.shape[-1])  # density 1/2 a dimension
    here, here_log_prob = _draws(actor(batch.observation), keys["here"], actions)
    after, after_log_prob = _draws(actor(batch.next_observation), keys["next"], actions)
    action = jnp.concatenate([uniform, here, after])  # [3 n, B, A]
    log_prob = jnp.concatenate([flat, here_log_prob, after_log_prob])
    observation = jnp.broadcast_to(batch.observation, (len(action), *batch.observation.shape))
    q = critic.apply(params, observation, action)  # [N, 3 n, B]
    return temperature * jax.nn.logsumexp((q - log_prob[None]) / temperature, axis=1)


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
    return CQLState(state, common.learner(jnp.zeros((), jnp.float32), _optimiser(config)))


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
    log_multiplier, more = common.descend(
        _multiplier_loss, _optimiser(config), state.log_multiplier, metrics["conservative_gap"], config
    )
    return CQLState(new, log_multiplier), {**metrics, **more}


def _act(state: CQLState, observation: Array, *, config: CQLConfig, spec: Spec) -> TanhNormal:
    return sac_act(state.sac, observation, config=config, spec=spec)


@lru_cache
def cql(config: CQLConfig, spec: Spec) -> Agent:
    """CQL as an agent; one minibatch an update. Equal arguments give the same agent."""
    settings = (("config", config), ("spec", spec))
    return Agent(init=Bound(_init, settings), update=Bound(_update, settings), act=Bound(_act, settings))
