"""Short sequences whose optimum is known: what alignment of tokens is measured on.

All sequences can be listed, so the prior's conditionals are exact, and so are the model's own distribution
and the tilt `p(x) exp(r(x) / beta)`. The model is exact before it learns: the prior's denoiser and a small
network that begins at zero.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment.models import Given, TokenModel
from jdp.diffusion.discrete import exact
from jdp.diffusion.discrete.samplers import Unmasking
from jdp.networks.mlp import mlp
from jdp.types import Bound, Network, Params, TokenDenoiser, bind

LENGTH, VOCABULARY = 4, 3
NETWORK: Network = mlp((64, 64, LENGTH * VOCABULARY), activation="mish", last_limit=0.0)


def prior() -> Array:
    """`[V^L]`: neighbours like to be alike, and low tokens are more likely."""
    x = exact.sequences(LENGTH, VOCABULARY)
    alike = jnp.sum(x[:, 1:] == x[:, :-1], axis=1, dtype=jnp.float32)
    return jax.nn.softmax(alike - 0.3 * jnp.sum(x, axis=1, dtype=jnp.float32))


def _differing(sign: Array, x0: Array, condition: Array) -> Array:
    del condition
    return sign * jnp.mean((x0[:, 1:] != x0[:, :-1]).astype(jnp.float32), axis=1)


def given(key: Array, sign: float = 1.0) -> Given:
    """A correction of zero, and the share of neighbours that differ, times `sign`; the key is consumed."""
    params = NETWORK.init(key, jnp.zeros(LENGTH * (VOCABULARY + 1)))
    return Given(params, bind(_differing, jnp.asarray(sign, jnp.float32)), jnp.zeros((1, 0)))


def _corrected(params: Params, probability: Array, tokens: Array, level: Array) -> Array:
    shown = jax.nn.one_hot(tokens, VOCABULARY + 1).reshape(*tokens.shape[:-1], -1)
    correction = NETWORK.apply(params, shown).reshape(*tokens.shape, VOCABULARY)
    return exact.conditionals(probability, LENGTH, VOCABULARY)(tokens, level) + correction


def denoiser(params: Params, condition: Array) -> TokenDenoiser:
    """The prior's, corrected."""
    del condition
    return bind(_corrected, params, prior())


def model(sampling: Unmasking) -> TokenModel:
    """The prior's denoiser with a correction that learns."""
    return TokenModel(Bound(denoiser, ()), LENGTH, VOCABULARY, sampling)


class Measured(NamedTuple):
    """A model's own distribution, one token at a time in random order; exact."""

    reward: Array  # [], expected
    kl: Array  # [], from the prior
    distance: Array  # [], total variation from the tilt


def tilted(beta: float) -> Array:
    """`[V^L]`, the tilt of the prior."""
    x = exact.sequences(LENGTH, VOCABULARY)
    return jax.nn.softmax(jnp.log(prior()) + _differing(jnp.ones(()), x, x) / beta)


def measured(law: Array, beta: float) -> Measured:
    """Of a distribution `[V^L]` against the tilt of the reward at `beta`."""
    x = exact.sequences(LENGTH, VOCABULARY)
    kl = jnp.sum(jnp.where(law > 0, law * jnp.log(jnp.where(law > 0, law, 1.0) / prior()), 0.0))
    distance = 0.5 * jnp.sum(jnp.abs(law - tilted(beta)))
    return Measured(jnp.sum(law * _differing(jnp.ones(()), x, x)), kl, distance)
