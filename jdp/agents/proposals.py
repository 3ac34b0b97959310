"""Where A2PR's own action comes from: models of the data's actions that were better than V expected.

The authors' is a conditional VAE (after BCQ, Fujimoto et al. 2019, arXiv 1812.02900); ours beside it is a
denoiser (EDM, arXiv 2206.00364), which keeps apart what a VAE blurs: two good actions of one state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm
from jdp.errors import check_settings
from jdp.learning import averaged, optimiser
from jdp.learning.averaged import Averaged
from jdp.learning.optimiser import Trained, constant_adam
from jdp.learning.vector_diffusion import VectorDiffusionConfig
from jdp.networks.conditional_mlp import conditioned
from jdp.networks.mlp import mlp
from jdp.types import Bound, Metrics, Network, Normal, Params, PyTree, named_keys

LOG_STD = (-4.0, 15.0)  # of the encoder, as in the code of BCQ
SIGMA_DATA = 0.5  # standard deviation of actions within [-1, 1]


class Proposal(NamedTuple):
    """A model of actions `[B, A]` at standardised observations `[B, O]`; keys are consumed."""

    init: Callable[[Array, int, int], PyTree]  # init(key, O, A) -> state
    update: Callable[[Array, PyTree, Array, Array, Array], tuple[PyTree, Metrics]]
    # update(key, state, observation, action, weight [B]) -> (state, metrics)
    draw: Callable[[Array, PyTree, Array, Array], Array]
    # draw(key, state, observation, action of the actor [B, A]) -> [B, A], within [-1, 1]


@dataclass(frozen=True)
class VAEConfig:
    """A conditional VAE of actions."""

    hidden: tuple[int, ...] = (750, 750)
    """Widths of encoder and decoder."""
    latent: int = 2
    """Numbers of the code for each number of an action."""
    reconstruction_weight: float = 1.0
    """Of the squared error."""
    kl_weight: float = 0.5
    """Of the divergence of the code from N(0, I)."""
    learning_rate: float = 1e-3
    """Of Adam, constant."""
    adam_eps: float = 1e-8
    """Of Adam."""

    def __post_init__(self) -> None:
        check_settings("VAEConfig", latent=(self.latent, 1, 1000))

    def networks(self, actions: int) -> tuple[Network, Network]:
        """The encoder and the decoder, before its tanh."""
        code = self.latent * actions
        return mlp((*self.hidden, 2 * code)), mlp((*self.hidden, actions))


def encode(params: Params, observation: Array, action: Array, config: VAEConfig) -> Normal:
    """The distribution of the code, `[B, L]`, of actions `[B, A]`."""
    encoder, _ = config.networks(action.shape[-1])
    both = encoder.apply(params["encoder"], jnp.concatenate([observation, action], axis=-1))
    mean, log_std = jnp.split(both, 2, axis=-1)
    return Normal(mean, jnp.exp(jnp.clip(log_std, *LOG_STD)))


def decode(params: Params, observation: Array, code: Array, config: VAEConfig) -> Array:
    """`[B, A]`, the action of a code `[B, L]`."""
    _, decoder = config.networks(code.shape[-1] // config.latent)
    return jnp.tanh(decoder.apply(params["decoder"], jnp.concatenate([observation, code], axis=-1)))


def divergence(code: Normal) -> Array:
    """`[]`, `KL(code || N(0, I))` of an entry of the code: the mean over `[B, L]` as in the authors' code."""
    standard = Normal(jnp.zeros_like(code.mean), jnp.ones_like(code.std))
    return jnp.mean(code.kl(standard)) / code.mean.shape[-1]


def vae_loss(
    params: Params, observation: Array, action: Array, weight: Array, *, key: Array, config: VAEConfig
) -> tuple[Array, Metrics]:
    """`mean w (decoded - a)^2 + kl_weight KL`; the code of every action counts. The key is consumed."""
    code = encode(params, observation, action, config)
    error = jnp.square(decode(params, observation, code.sample(key), config) - action)
    found, kl = jnp.mean(weight[:, None] * error), divergence(code)
    loss = config.reconstruction_weight * found + config.kl_weight * kl
    return loss, {"proposal_loss": found, "proposal_kl": kl}


def _vae_init(key: Array, observations: int, actions: int, *, config: VAEConfig) -> Trained:
    keys, (encoder, decoder) = named_keys(key, "encoder", "decoder"), config.networks(actions)
    params = {
        "encoder": encoder.init(keys["encoder"], jnp.zeros(observations + actions)),
        "decoder": decoder.init(keys["decoder"], jnp.zeros(observations + config.latent * actions)),
    }
    return optimiser.begin(constant_adam(config), params)


def _vae_update(
    key: Array, state: Trained, observation: Array, action: Array, weight: Array, *, config: VAEConfig
) -> tuple[Trained, Metrics]:
    loss = partial(vae_loss, key=key, config=config)
    return optimiser.descend(constant_adam(config), state, loss, observation, action, weight)


def _vae_draw(key: Array, state: Trained, observation: Array, action: Array, *, config: VAEConfig) -> Array:
    """What the VAE makes of the actor's action: the nearest that it knows to be good."""
    code = encode(state.params, observation, action, config).sample(key)
    return decode(state.params, observation, code, config)


def vae(config: VAEConfig) -> Proposal:
    """The authors' model. Equal settings give the same functions."""
    settings = (("config", config),)
    return Proposal(*(Bound(function, settings) for function in (_vae_init, _vae_update, _vae_draw)))


def _adam(config: VectorDiffusionConfig, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps * config.steps))


def _denoiser_init(
    key: Array, observations: int, actions: int, *, config: VectorDiffusionConfig, steps: int
) -> Averaged:
    shapes = jnp.zeros((1, actions)), jnp.zeros(1), jnp.zeros((1, observations))
    return averaged.begin(_adam(config, steps), config.network().init(key, *shapes))


def _denoiser_update(
    key: Array,
    state: Averaged,
    observation: Array,
    action: Array,
    weight: Array,
    *,
    config: VectorDiffusionConfig,
    steps: int,
) -> tuple[Averaged, Metrics]:
    keys, apply = named_keys(key, "level", "noise"), conditioned(config.network().apply)
    levels = {"p_mean": config.p_mean, "p_std": config.p_std}
    sigma = losses.log_normal_levels(keys["level"], len(action), action.dtype, **levels)

    def loss(params: Params) -> tuple[Array, Metrics]:
        options = {"weight": weight, "sigma_data": SIGMA_DATA}
        found, _ = losses.denoising_at(keys["noise"], apply, (params, observation), action, sigma, **options)
        return found, {"proposal_loss": found}

    return averaged.descend(_adam(config, steps), state, loss, config.ema)


def _denoiser_draw(
    key: Array,
    state: Averaged,
    observation: Array,
    action: Array,
    *,
    config: VectorDiffusionConfig,
    steps: int,
) -> Array:
    """A draw from the good actions of the state, wherever the actor's lies."""
    del steps
    own = edm(conditioned(config.network().apply), (state.ema, observation), sigma_data=SIGMA_DATA)
    return jnp.clip(config.sampling().draw(key, own, action.shape), -1.0, 1.0)


def diffusion(config: VectorDiffusionConfig, steps: int) -> Proposal:
    """Ours: a denoiser, which makes `steps` steps in an update. Equal settings give the same functions."""
    settings = (("config", config), ("steps", steps))
    functions = (_denoiser_init, _denoiser_update, _denoiser_draw)
    return Proposal(*(Bound(function, settings) for function in functions))
