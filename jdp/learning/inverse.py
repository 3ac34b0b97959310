"""Inverse dynamics: the action that leads from a state to one some steps ahead."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.diffusion import edm, losses, samplers, schedules
from jdp.errors import UserError, check_choices
from jdp.learning.averaged import Averaged, begin, descend
from jdp.learning.optimiser import adam
from jdp.learning.scale import Scale
from jdp.networks.conditional_mlp import conditional_mlp, conditioned
from jdp.networks.mlp import mlp
from jdp.types import Metrics, Params, PyTree, Segments, Spec

# Levels for standardised actions, whose least spread may be .01 or so: low ones count.
P_MEAN, SIGMA_MIN, SIGMA_MAX = -1.2, 0.01, 20.0


@dataclass(frozen=True)
class InverseConfig:
    """A network from two states and the steps between them to the action."""

    kind: Literal["mlp", "diffusion"] = "mlp"
    """mlp: regression (as in arXiv 2211.15657); diffusion: draws from p(action | states), which may have many
    modes (as in arXiv 2503.00535)."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the layers; of the diffusion kind one width of as many residual blocks."""
    learning_rate: float = 1e-3
    """Peak of the same schedule as the denoiser's."""
    steps: int = 10_000
    """As of the denoiser."""
    ema: float = 0.995
    """Decay of the averaged weights."""
    sampling_steps: int = 10
    """Network calls of an action, of the diffusion kind."""
    temperature: float = 0.5
    """Scales the initial noise of an action, of the diffusion kind; 0: one action without chance."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.hidden or (self.kind == "diffusion" and len(set(self.hidden)) > 1):
            raise UserError(
                f"hidden layers {self.hidden}: an inverse model needs one or more, of one width for diffusion"
            )


class Inverse(NamedTuple):
    """A trainable inverse model, as pure functions; states and actions are standardised."""

    init: Callable[..., Averaged]  # init(key, state [B, O], target [B, O], action [B, A])
    update: Callable[..., tuple[Averaged, Metrics]]
    # update(key, state, observation [B, O], target [B, O], ahead [B], action [B, A])
    act: Callable[..., Array]  # act(key, state, observation, target, ahead [B]) -> [B, A]


class _Kind(NamedTuple):
    """What the kinds differ in: all of `x`, which says where to go, as one vector `[B, X]`."""

    init: Callable[[Array, Array, Array], Params]  # init(key, x, action)
    loss: Callable[[Array, Params, Array, Array], Array]  # loss(key, params, x, action) -> scalar
    act: Callable[[Array, Params, Array], Array]  # act(key, params, x) -> action [B, A]


def _regression(config: InverseConfig, action_dim: int) -> _Kind:
    net = mlp((*config.hidden, action_dim), activation="silu", layer_norm=True)

    def loss(key: Array, params: Params, x: Array, action: Array) -> Array:
        del key
        return jnp.mean(jnp.square(net.apply(params, x) - action))

    return _Kind(lambda key, x, action: net.init(key, x), loss, lambda key, params, x: net.apply(params, x))


def _diffusion(config: InverseConfig, action_dim: int) -> _Kind:
    net = conditional_mlp(config.hidden[0], len(config.hidden))
    apply = conditioned(net.apply)

    def init(key: Array, x: Array, action: Array) -> Params:
        return net.init(key, action, jnp.zeros(action.shape[0]), x)

    def loss(key: Array, params: Params, x: Array, action: Array) -> Array:
        return losses.denoising(key, apply, (params, x), action, p_mean=P_MEAN)[0]

    def act(key: Array, params: Params, x: Array) -> Array:
        sigmas = schedules.karras(config.sampling_steps, SIGMA_MIN, SIGMA_MAX)
        noise = jax.random.normal(key, (x.shape[0], action_dim), x.dtype)
        return samplers.euler(edm(apply, (params, x)), config.temperature * SIGMA_MAX * noise, sigmas)

    return _Kind(init, loss, act)


@lru_cache(maxsize=64)
def inverse(config: InverseConfig, action_dim: int, stride: int, relative: tuple[int, ...] = ()) -> Inverse:
    """The model of `config` for targets 1 to `stride` steps ahead.

    The diffusion kind is EDM's (arXiv 2206.00364) and its low temperature that of the noise an ODE begins
    with, where the paper has a DDPM; actions are clipped once, when they are played, not at every step.

    `relative`: entries of the observation that enter only as a difference, for instance a position, on
    whose origin the dynamics do not depend (Diffusion Veteran, arXiv 2503.00535, rebases them).
    """
    net = (_diffusion if config.kind == "diffusion" else _regression)(config, action_dim)
    optimiser = adam(config)

    def inputs(observation: Array, target: Array, ahead: Array) -> Array:
        here = observation
        for entry in relative:
            here = here.at[:, entry].set(0.0)
        share = ahead.astype(observation.dtype)[:, None] / stride
        return jnp.concatenate([here, target - observation, share], axis=-1)

    def init(key: Array, observation: Array, target: Array, action: Array) -> Averaged:
        ahead = jnp.ones(observation.shape[0], jnp.int32)
        return begin(optimiser, net.init(key, inputs(observation, target, ahead), action))

    def update(key: Array, state, observation: Array, target: Array, ahead: Array, action: Array):
        x = inputs(observation, target, ahead)

        def loss(params: Params) -> tuple[Array, Metrics]:
            error = net.loss(key, params, x, action)
            return error, {"inverse_loss": error}

        return descend(optimiser, state, loss, config.ema)

    def act(key: Array, state, observation: Array, target: Array, ahead: Array) -> Array:
        return net.act(key, state.ema, inputs(observation, target, ahead))

    return Inverse(init, update, act)


def near_pair(key: Array, segments: Segments, scale: Scale, stride: int) -> tuple[Array, Array, Array, Array]:
    """`(state, state ahead, steps ahead [B], action)` of a segment whose rows 0 .. stride are consecutive."""
    ahead = jax.random.randint(key, (segments.reward.shape[0],), 1, stride + 1)
    target = segments.observation[jnp.arange(ahead.shape[0]), ahead]
    return (
        scale.observation(segments.observation[:, 0]),
        scale.observation(target),
        ahead,
        scale.action(segments.action[:, 0]),
    )


def begin_inverse(key: Array, control: Inverse | None, spec: Spec) -> PyTree:
    """The first weights of `control`, `Averaged`, or None without it; the key is consumed."""
    if control is None:
        return None
    s, action = jnp.zeros((1, spec.observation_dim)), jnp.zeros((1, spec.action_dim))
    return control.init(key, s, s, action)


def learn_near(
    pair_key: Array,
    key: Array,
    control: Inverse | None,
    state: PyTree,
    batch: Segments,
    scale: Scale,
    stride: int,
) -> tuple[PyTree, Metrics]:
    """One update of `control`, if there is one, on a `near_pair` of every segment; consumes the keys."""
    if control is None:
        return state, {}
    return control.update(key, state, *near_pair(pair_key, batch, scale, stride))
