"""How good a model is at what it is aligned to: reward, distance from what it was, and from the optimum."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.alignment import token_toy, toy
from jdp.alignment.chain import DrawnConfig, sample
from jdp.alignment.models import Model
from jdp.alignment.toy import Measured, Mixture
from jdp.diffusion import chains
from jdp.diffusion.discrete import exact
from jdp.learning.candidates import repeated
from jdp.types import Params, named_keys


class Score(NamedTuple):
    """Of samples at given conditions."""

    reward: Array  # [], mean; 0 without a judge
    divergence: Array  # [], of chains from those of the model as it was, in nats a sample
    samples: Array  # [B, *event]


@partial(jax.jit, static_argnames=("model", "count"))
def score(
    key: Array,
    params: Params,
    reference: Params,
    judge: Partial | None,
    condition: Array,
    *,
    model: Model,
    count: int,
) -> Score:
    """`count` samples at each condition `[N, C]`, drawn as the model is used; the key is consumed.

    The divergence is that of chains with the noise of `DrawnConfig()`, whichever sampler the model has.
    """
    keys, seen, config = named_keys(key, "sample", "chain"), repeated(condition, count), DrawnConfig()
    x0 = model.sample(keys["sample"], params, seen)
    states = sample(keys["chain"], params, seen, config, model, model.step)
    apart = chains.chain_kl(
        model.step,
        model.denoiser(params, seen),
        model.denoiser(reference, seen),
        states,
        model.sampling.sigmas(),
        eta=config.eta,
        std_floor=config.std_floor,
        event_axes=model.event_axes,
        mask=model.mask,
        memory=((), ()),
        summed=True,
    )
    return Score(jnp.zeros(()) if judge is None else jnp.mean(judge(x0, seen)), jnp.mean(apart), x0)


def of_tokens(params: Params, beta: float) -> token_toy.Measured:
    """Of the toy of tokens, whose distribution is exact, against the tilt at `beta`."""
    denoiser = token_toy.denoiser(params, jnp.zeros((1, 0)))
    return token_toy.measured(exact.law(denoiser, token_toy.LENGTH, token_toy.VOCABULARY), beta)


def against(x0: Array, targets: tuple[Mixture, ...]) -> Measured:
    """Samples `[K * n, 2]` of the toy, n at each of K conditions, against the optimum of each: the mean."""
    found = [
        toy.measured(own, mixture) for own, mixture in zip(jnp.split(x0, len(targets)), targets, strict=True)
    ]
    mean = jax.tree.map(lambda *x: jnp.mean(jnp.stack(x)), *found)
    return mean._replace(off_support=toy.off_support(x0))
