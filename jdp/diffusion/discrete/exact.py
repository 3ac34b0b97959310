"""Distributions over few sequences, whose conditionals are known: what discrete diffusion is tested on."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion.discrete.masking import hide, predicted
from jdp.types import TokenDenoiser, bind


def sequences(length: int, vocabulary: int) -> Array:
    """`[V^L, L]`, all of them; sequence `i` has the digits of `i` in base V."""
    return jnp.asarray(list(product(range(vocabulary), repeat=length)), jnp.int32)


def _conditionals(probability: Array, tokens: Array, level: Array, *, length: int, vocabulary: int) -> Array:
    del level
    all_of_them = jax.nn.one_hot(sequences(length, vocabulary), vocabulary)  # [N, L, V]
    # A masked token's row is all ones, so that it agrees with any sequence.
    shown = jax.nn.one_hot(tokens, vocabulary)
    shown = jnp.where((tokens == vocabulary)[..., None], 1.0, shown)
    agree = jnp.all(jnp.einsum("...lv,nlv->...nl", shown, all_of_them) > 0.5, axis=-1)
    weights = jnp.where(agree, jnp.broadcast_to(probability, agree.shape), 0.0)
    return jnp.log(jnp.maximum(jnp.einsum("...n,nlv->...lv", weights, all_of_them), 1e-30))


def conditionals(probability: Array, length: int, vocabulary: int) -> Partial:
    """The exact denoiser of a distribution `[V^L]` over `sequences(L, V)`."""
    return bind(_conditionals, probability, length=length, vocabulary=vocabulary)


def law(denoiser: TokenDenoiser, length: int, vocabulary: int) -> Array:
    """`[V^L]`, the distribution of what is drawn one token at a time, in random order.

    Over all sets of shown tokens, from the empty one: `p(S + i) += p(S) p(x_i | x_S) / (L - |S|)`. The
    denoiser is called once, with all rows `[2^L V^L, L]`.
    """
    found, sets = sequences(length, vocabulary), np.arange(2**length)
    hidden = (sets[:, None] >> np.arange(length)[None]) % 2 == 0  # [2^L, L]
    every = jnp.tile(found, (len(sets), 1))
    states = hide(every, jnp.repeat(jnp.asarray(hidden), len(found), axis=0), vocabulary)
    logs = predicted(denoiser, states, vocabulary).log_prob(every, event_axes=())
    each = jnp.exp(logs).reshape(len(sets), len(found), length)
    reached = [jnp.zeros(len(found)) for _ in sets]
    reached[0] = jnp.ones(len(found))
    for shown, places in enumerate(hidden):
        for i in np.flatnonzero(places):
            reached[shown | 1 << i] += reached[shown] * each[shown, :, i] / float(places.sum())
    return reached[-1]
