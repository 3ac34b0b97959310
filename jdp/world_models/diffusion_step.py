"""One step of a diffusion world model: the next state and reward as samples, not as a mean.

DIAMOND (arXiv 2405.12399) and World4RL ("Diffusion World Models for Policy Refinement with Reinforcement
Learning for Robotic Manipulation") for vectors: an EDM denoiser (arXiv 2206.00364) of what a step changes,
given the last observations and actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import Partial

from jdp.data import Episodes
from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm
from jdp.diffusion.diffuser import DiffuserConfig, DiffuserState, ema_decay, learning_rate
from jdp.diffusion.samplers import SAMPLERS
from jdp.diffusion.schedules import karras
from jdp.errors import UserError
from jdp.networks import optimiser
from jdp.networks.conditional_mlp import conditional_mlp, conditioned
from jdp.networks.two_hot import two_hot
from jdp.types import (
    AnyArray,
    Bound,
    Metrics,
    Network,
    Params,
    Spec,
    Transition,
    WorldModel,
    named_keys,
    pack,
    unpack,
)
from jdp.world_models.termination import Rule


@dataclass(frozen=True)
class DiffusionStepConfig:
    """Network, training and sampling of the diffusion step."""

    history: int = 1
    """H: observations (and actions) that the model sees."""
    hidden: int = 256
    """Width of the network."""
    blocks: int = 3
    """Residual blocks of two layers."""
    action_bins: int = 0
    """Bins of a two-hot encoding of each action entry; 0: actions as they are."""
    sampler: str = "dpmpp_2m"
    """One of `jdp.diffusion.samplers.SAMPLERS`. In 5 steps from 5 to .02 it gives Gaussians of std 1 and .3
    spreads that are 6 % and 2 % too wide; Euler's are 27 % and 31 % too narrow, which flatters its squared
    error."""
    sampler_steps: int = 5
    """Steps of the sampler."""
    sigma_min: float = 0.02
    """Last positive level of the Karras schedule."""
    sigma_max: float = 5.0
    """First level of the Karras schedule, in units of the data's standard deviation. In few steps a narrow
    range pays: of two exact modes, at +-1 and of std .05, 99.8 % of the samples end within .25 of a mode;
    from 20 to .02, 55 %."""
    rho: float = 7.0
    """Curvature of the Karras schedule."""
    p_mean: float = 0.0
    """Mean of ln sigma in training: higher than for pictures, for the condition says nearly everything."""
    p_std: float = 1.4
    """Standard deviation of ln sigma in training."""
    updates: int = 20_000
    """Gradient steps, over which the learning rate warms up and falls to 0 by a cosine."""
    batch_size: int = 256
    """Steps in a batch."""
    learning_rate: float = 3e-3
    """Peak of the schedule."""
    ema: float = 0.999
    """Decay of the averaged weights that are sampled from."""

    def __post_init__(self) -> None:
        check(self)
        if self.history < 1 or self.action_bins not in (0, *range(2, 10_000)):
            raise UserError(
                "DiffusionStepConfig needs history >= 1 and action_bins 0 or >= 2, "
                f"not {self.history} and {self.action_bins}"
            )


def check(config: Any) -> None:
    """Raises `UserError` where the settings of sampling make no sense."""
    name = type(config).__name__
    if config.sampler not in SAMPLERS:
        raise UserError(f"{name}.sampler is {config.sampler!r}; one of {', '.join(SAMPLERS)}")
    if config.sampler_steps < 2 or not 0 < config.sigma_min < config.sigma_max:
        raise UserError(
            f"{name} needs sampler_steps >= 2 and 0 < sigma_min < sigma_max, "
            f"not {config.sampler_steps}, {config.sigma_min} and {config.sigma_max}"
        )


# --- histories -----------------------------------------------------------------------------------


class History(NamedTuple):
    """Steps with what went before them in their episode."""

    observations: AnyArray  # [B, H, O], the last one is where the action is taken
    actions: AnyArray  # [B, H, A], the last one is the action taken; 0 before the episode began
    reward: AnyArray  # [B]
    next_observation: AnyArray  # [B, O]
    terminal: AnyArray  # [B], 1.0 where the step ended the task


class Histories(NamedTuple):
    """What batches of `History` are drawn from: rows in time order and indices into them."""

    rows: AnyArray  # [N, 2 O + A + 2], packed transitions
    at: AnyArray  # [W] int32, the rows whose successor is known
    first: AnyArray  # [W] int32, the first row of their episode


def histories(episodes: Episodes) -> Histories:
    """The steps of `episodes` with a known successor, as in `jdp.data.transitions`; numpy arrays."""
    terminal = episodes.terminals.astype(np.float32)
    fields = (episodes.observations, episodes.actions, episodes.rewards, episodes.next_observations)
    rows = np.asarray(pack(Transition(*(jnp.asarray(field) for field in (*fields, terminal)))))
    at = np.flatnonzero(episodes.terminals | episodes.next_valid)
    first = np.repeat(episodes.starts, episodes.lengths)[at]
    return Histories(rows, at.astype(np.int32), first.astype(np.int32))


def take(data: Histories, index: Array, *, history: int, dims: tuple[int, int]) -> History:
    """The steps `index` `[B]` of `data`, each with the `history` steps that end in it.

    Where the episode is younger, its first observation is repeated, with actions 0. `dims` is `(O, A)`.
    """
    back = jnp.arange(history - 1, -1, -1, dtype=jnp.int32)[None]
    wanted = jnp.asarray(data.at)[index][:, None] - back
    first = jnp.asarray(data.first)[index][:, None]
    steps = unpack(jnp.asarray(data.rows)[jnp.maximum(wanted, first)], *dims)
    return History(
        observations=steps.observation,
        actions=jnp.where((wanted >= first)[..., None], steps.action, 0.0),
        reward=steps.reward[:, -1],
        next_observation=steps.next_observation[:, -1],
        terminal=steps.terminal[:, -1],
    )


def _draw(key: Array, data: Histories, *, batch_size: int, history: int, dims: tuple[int, int]) -> History:
    index = jax.random.randint(key, (batch_size,), 0, data.at.shape[0])
    return take(data, index, history=history, dims=dims)


def draw_histories(batch_size: int, history: int, dims: tuple[int, int]) -> Bound:
    """A `draw(key, Histories) -> History` for `jdp.training.fit`; `dims` is `(O, A)`."""
    return Bound(_draw, (("batch_size", batch_size), ("history", history), ("dims", dims)))


def as_history(batch: Transition | History) -> History:
    """A batch of transitions as histories of one step."""
    if isinstance(batch, History):
        return batch
    return History(
        batch.observation[:, None],
        batch.action[:, None],
        batch.reward,
        batch.next_observation,
        batch.terminal,
    )


# --- coordinates ---------------------------------------------------------------------------------


class Statistics(NamedTuple):
    """Means and standard deviations of the dataset; of constants the deviation is 1."""

    observation_mean: Array  # [O]
    observation_std: Array  # [O]
    delta_mean: Array  # [O], of next observation - observation
    delta_std: Array  # [O]
    reward_mean: Array  # []
    reward_std: Array  # []
    action_mean: Array  # [A]
    action_std: Array  # [A]


def _moments(rows: AnyArray) -> tuple[Array, Array]:
    rows = jnp.asarray(rows, jnp.float32)
    mean, std = jnp.mean(rows, axis=0), jnp.std(rows, axis=0)
    return mean, jnp.where(std > 1e-6 * jnp.maximum(1.0, jnp.abs(mean)), std, 1.0)


def statistics(data: Transition | History) -> Statistics:
    """Of a dataset with leading axis `[N]`; actions count as they are taken, without those before."""
    data = as_history(data)
    observation = data.observations[:, -1]
    return Statistics(
        *_moments(observation),
        *_moments(data.next_observation - observation),
        *_moments(data.reward),
        *_moments(data.actions[:, -1]),
    )


def _like(channel: Array, x: Array) -> Array:
    return jnp.broadcast_to(channel, x.shape)


def standardise(x: Array, mean: Array, std: Array) -> Array:
    """`[..., D]`, in units of `std` `[D]` from `mean` `[D]`."""
    return (x - _like(mean, x)) / _like(std, x)


def restore(x: Array, mean: Array, std: Array) -> Array:
    """The inverse of `standardise`."""
    return x * _like(std, x) + _like(mean, x)


def encode_change(s: Statistics, observation: Array, next_observation: Array) -> Array:
    """`[B, O]`, the standardised change of the observation."""
    return standardise(next_observation - observation, s.delta_mean, s.delta_std)


def encode_outcome(s: Statistics, step: History, *, flag: bool) -> Array:
    """`[B, O + 1]`, one more with the `flag`: standardised change, standardised reward, raw terminal flag."""
    parts = [
        encode_change(s, step.observations[:, -1], step.next_observation),
        standardise(step.reward, s.reward_mean, s.reward_std)[:, None],
    ]
    return jnp.concatenate([*parts, step.terminal[:, None]] if flag else parts, axis=-1)


def decode_outcome(
    s: Statistics, x: Array, observation: Array, action: Array, rule: Rule | None
) -> tuple[Array, Array, Array]:
    """Next observation `[B, O]`, reward `[B]` and terminal `[B]` (0 or 1), of what `encode_outcome` made.

    The terminal is by `rule`, or where there is none by the generated flag: above 1/2.
    """
    o = observation.shape[-1]
    following = observation + restore(x[:, :o], s.delta_mean, s.delta_std)
    reward = restore(x[:, o], s.reward_mean, s.reward_std)
    terminal = x[:, o + 1] > 0.5 if rule is None else rule(observation, action, following)
    return following, reward, terminal.astype(x.dtype)


# --- training ------------------------------------------------------------------------------------


def _optimiser(config: Any) -> optax.GradientTransformation:
    return optax.adam(learning_rate(DiffuserConfig(steps=config.updates, learning_rate=config.learning_rate)))


def begin(config: Any, params: Params) -> DiffuserState:
    """Training of `params` before its first step."""
    ema = jax.tree.map(jnp.copy, params)
    return DiffuserState(params, ema, _optimiser(config).init(params), jnp.zeros((), jnp.int32))


def descend(
    config: Any, state: DiffuserState, loss: Callable[[Params], tuple[Array, Metrics]]
) -> tuple[DiffuserState, Metrics]:
    """One step of Adam and of the averaged weights; `config` has `updates`, `learning_rate` and `ema`."""
    gradient, metrics = jax.grad(loss, has_aux=True)(state.params)
    params, opt_state = optimiser.step(_optimiser(config), gradient, state.opt_state, state.params)
    decay = ema_decay(config.ema, state.step)
    ema = optax.incremental_update(params, state.ema, 1 - decay)
    return DiffuserState(params, ema, opt_state, state.step + 1), metrics


class DiffusionStepState(NamedTuple):
    """Weights, their average, and the units of the task."""

    training: DiffuserState
    statistics: Statistics


def _network(config: DiffusionStepConfig) -> Network:
    return conditional_mlp(config.hidden, config.blocks)


def _condition(config: DiffusionStepConfig, s: Statistics, observations: Array, actions: Array) -> Array:
    """`[B, C]`, of observations `[B, H, O]` and actions `[B, H, A]`."""
    batch = observations.shape[0]
    seen = standardise(observations, s.observation_mean, s.observation_std)
    if config.action_bins:
        actions = two_hot(actions, config.action_bins)
    return jnp.concatenate([seen.reshape(batch, -1), actions.reshape(batch, -1)], axis=-1)


def _width(spec: Spec, rule: Rule | None) -> int:
    return spec.observation_dim + (2 if rule is None else 1)


def _init(
    key: Array, data: Transition | History, *, config: DiffusionStepConfig, spec: Spec, rule: Rule | None
) -> DiffusionStepState:
    o, a = spec.observation_dim, spec.action_dim
    found = as_history(data)
    check_fits(found, spec)
    numbers = a * max(config.action_bins, 1)
    x, condition = jnp.zeros((1, _width(spec, rule))), jnp.zeros((1, config.history * (o + numbers)))
    params = _network(config).init(key, x, jnp.zeros(1), condition)
    return DiffusionStepState(begin(config, params), statistics(found))


def check_fits(data: History, spec: Spec) -> None:
    """Raises `UserError` where the data are not of the task in `spec`."""
    found = data.next_observation.shape[-1], data.actions.shape[-1]
    if found != (spec.observation_dim, spec.action_dim):
        raise UserError(
            f"the data have observations of {found[0]} and actions of {found[1]} numbers, but the world "
            f"model was made for {spec.observation_dim} and {spec.action_dim}: make it with the spec of this "
            "dataset"
        )


def _update(
    key: Array,
    state: DiffusionStepState,
    batch: Transition | History,
    *,
    config: DiffusionStepConfig,
    spec: Spec,
    rule: Rule | None,
) -> tuple[DiffusionStepState, Metrics]:
    del spec
    batch, s = as_history(batch), state.statistics
    if batch.observations.shape[1] != config.history:
        raise UserError(
            f"the batch has histories of {batch.observations.shape[1]} steps, but the world model sees "
            f"{config.history}: draw it with draw_histories(batch_size, {config.history}, dims)"
        )
    x0 = encode_outcome(s, batch, flag=rule is None)
    condition = _condition(config, s, batch.observations, batch.actions)
    apply = conditioned(_network(config).apply)

    def loss(params: Params) -> tuple[Array, Metrics]:
        both = (params, condition)
        return losses.denoising(key, apply, both, x0, p_mean=config.p_mean, p_std=config.p_std)

    training, metrics = descend(config, state.training, loss)
    return DiffusionStepState(training, s), metrics


# --- sampling ------------------------------------------------------------------------------------


def denoiser(
    config: DiffusionStepConfig, state: DiffusionStepState, observations: Array, actions: Array
) -> Partial:
    """The denoiser of what a step changes `[B, O + 1 or 2]`, of the averaged weights.

    Given observations `[B, H, O]` and actions `[B, H, A]` in the units of the task; its leaves are the
    weights and the condition.
    """
    condition = _condition(config, state.statistics, observations, actions)
    return edm(conditioned(_network(config).apply), (state.training.ema, condition))


class Carry(NamedTuple):
    """What an episode remembers, the latest last."""

    observations: Array  # [B, H, O]
    actions: Array  # [B, H - 1, A]


def _start(observations: Array, actions: Array, *, config: DiffusionStepConfig) -> Carry:
    if observations.shape[1] != config.history or actions.shape[1] != config.history - 1:
        raise UserError(
            f"the world model begins with {config.history} observations and {config.history - 1} actions, "
            f"not {observations.shape[1]} and {actions.shape[1]}"
        )
    return Carry(observations, actions)


def _step(
    key: Array,
    state: DiffusionStepState,
    carry: Carry,
    action: Array,
    *,
    config: DiffusionStepConfig,
    spec: Spec,
    rule: Rule | None,
) -> tuple[Carry, Array, Array, Array]:
    keys = named_keys(key, "start", "sampler")
    observation = carry.observations[:, -1]
    actions = jnp.concatenate([carry.actions, action[:, None]], axis=1)
    sigmas = karras(config.sampler_steps, config.sigma_min, config.sigma_max, config.rho)
    x = sigmas[0] * jax.random.normal(keys["start"], (action.shape[0], _width(spec, rule)))
    d = denoiser(config, state, carry.observations, actions)
    x0 = SAMPLERS[config.sampler](d, x, sigmas, key=keys["sampler"])
    following, reward, terminal = decode_outcome(state.statistics, x0, observation, action, rule)
    observations = jnp.concatenate([carry.observations[:, 1:], following[:, None]], axis=1)
    return Carry(observations, actions[:, 1:]), following, reward, terminal


@lru_cache
def diffusion_step(config: DiffusionStepConfig, spec: Spec, rule: Rule | None = None) -> WorldModel:
    """A world model whose next state and reward are samples of a few-step diffusion.

    It denoises `[standardised change of the observation, standardised reward, terminal flag]` given the last
    `config.history` standardised observations and actions, trained with EDM's loss. So what the
    data leave open stays open (two outcomes stay two), where a Gaussian puts its mean between them.

    Args:
        config: settings; equal arguments give the same world model.
        spec: of the task.
        rule: `(observation, action, next observation) -> [B]` bool, a module-level function that says where
            the task ends; with one there is no flag channel. None: the generated flag, above 1/2.

    `init(key, data)` takes the dataset, for its statistics: transitions, or `History` `[N, ...]`.
    `update` takes batches of `History` (see `draw_histories`), or of transitions where `history` is 1.
    Terminals are 0.0 or 1.0.
    """
    settings: tuple[tuple[str, Any], ...] = (("config", config), ("spec", spec), ("rule", rule))
    return WorldModel(
        init=Bound(_init, settings),
        update=Bound(_update, settings),
        start=Bound(_start, settings[:1]),
        step=Bound(_step, settings),
        history=config.history,
    )
