"""Whether samples lie where the data do: how well the model as it was finds them again under noise.

A sample of the data, noised to a middle level, is denoised to about itself; one that lies off the data is
drawn back to them. So the error of the reference's denoiser tells the two apart without a density. What is
usual is measured once, on the reference's own samples.
"""

from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment.learner import AlignConfig
from jdp.alignment.models import AnyModel, Given, Model
from jdp.learning.optimiser import Trained
from jdp.types import AnyArray, Logged, Params, PyTree, expand, named_keys

LEVELS = (0.1, 0.2, 0.4)  # of the spread of samples: above that of a mode, below the gaps between modes
DRAWS = 2  # of noise at each level, the better one of which counts: noise may carry a sample to another mode
QUANTILE = 0.999  # of the reference's errors, beyond which a sample is off the support
COUNT = 4096  # samples of the reference: with half as many, one bound in twenty lets 0.5 % of its own through
SLICE = 256  # samples drawn at once


class Support(NamedTuple):
    """What is usual of samples of the reference."""

    sigma: Array  # [L], levels
    bound: Array  # [L], squared errors; 99.9 % of its samples stay below all of them


def conditions(rows: PyTree) -> AnyArray:
    """`[N, C]`, of rows of `Given`: they are the conditions, or have them in a field."""
    return getattr(rows, "condition", rows)


def errors(key: Array, params: Params, x0: Array, condition: Array, sigma: Array, model: Model) -> Array:
    """`[L, B]`: `|D(x0 + sigma eps) - x0|^2` of samples `[B, *event]` at levels `[L]`.

    The key is consumed.
    """
    shape = len(sigma), DRAWS, len(x0)
    level = jnp.repeat(sigma, DRAWS * len(x0))
    many, shown = (jnp.concatenate([x] * (len(sigma) * DRAWS)) for x in (x0, condition))
    noise = jax.random.normal(key, many.shape)
    found = model.denoiser(params, shown)(many + expand(level, many) * noise, level)
    square = jnp.sum(jnp.square(found - many), axis=model.event_axes)
    return jnp.min(square.reshape(shape), axis=1)


def known(key: Array, params: Params, rows: PyTree, model: Model) -> Support:
    """Of the model as it is, at conditions that occur in `rows` of `Given`; the key is consumed."""
    keys, condition, slices = named_keys(key, "row", "sample", "noise"), conditions(rows), COUNT // SLICE
    place = jax.random.randint(keys["row"], (slices, SLICE), 0, len(condition))
    shown = jnp.asarray(condition)[place]
    draws, noises = (jax.random.split(keys[name], slices) for name in ("sample", "noise"))
    x0 = jax.lax.map(lambda item: model.sample(item[0], params, item[1]), (draws, shown))
    sigma = jnp.array(LEVELS) * jnp.std(x0)

    def of_slice(item: tuple[Array, Array, Array]) -> Array:
        key, x0, shown = item
        return errors(key, params, x0, shown, sigma, model)

    found = jax.lax.map(of_slice, (noises, x0, shown))
    each = jnp.quantile(found, QUANTILE, axis=(0, 2))
    worst = jnp.max(found / each[None, :, None], axis=1)  # of the levels, so that they err together 0.1 %
    return Support(sigma, each * jnp.quantile(worst, QUANTILE))


def off(key: Array, support: Support, reference: Params, x0: Array, condition: Array, model: Model) -> Array:
    """`[B]` bool, which samples `[B, *event]` lie off it, or are not finite; the key is consumed."""
    found = errors(key, reference, x0, condition, support.sigma, model)
    return jnp.any(~(found <= support.bound[:, None]), axis=0)


@partial(jax.jit, static_argnames=("count", "model"))
def _shares(
    known: Support, reference: Params, params: Params, rows: AnyArray, count: int, model: Model
) -> Array:
    """`[S]`, of `params` `[S, ...]`, which all draw from the same noise."""

    def one(params: Params) -> Array:
        keys, shown = named_keys(jax.random.key(0), "sample", "noise"), rows[jnp.arange(count) % len(rows)]
        x0 = model.sample(keys["sample"], params, shown)
        return jnp.mean(off(keys["noise"], known, reference, x0, shown, model).astype(jnp.float32))

    return jax.vmap(one)(params)


class Watched(Protocol):
    """A state of alignment: `jdp.alignment.learner.Aligned`."""

    @property
    def trained(self) -> Trained: ...


class Guard(NamedTuple):
    """For `jdp.loops.train(..., stop_when=)`: training stops where many samples lie off the data's support.

    The state itself is judged, by samples of its own, so that what training goes back to has passed. Of many
    seeds the worst one counts.
    """

    known: Support
    reference: Params  # as the model was
    rows: AnyArray  # [N, C], conditions at which is drawn
    model: Model
    bound: float  # the largest share
    samples: int  # that are judged

    def shares(self, params: Params) -> Array:
        """`[S]`, of seeds' `params` `[S, ...]` the share of samples that lie off."""
        return _shares(self.known, self.reference, params, self.rows, self.samples, self.model)

    def __call__(self, state: Watched, metrics: Logged) -> str | None:
        """Why to stop, of a state of all seeds `[S, ...]`; None: nothing is wrong."""
        del metrics
        share = float(jnp.max(self.shares(state.trained.params)))
        if share <= self.bound:
            return None
        mend = "raise kl_weight, lower the learning rate, or bound the reward"
        return f"{share:.1%} of samples lie off the data, more than {self.bound:.1%}; {mend}"


def guard(key: Array, given: Given, config: AlignConfig, model: AnyModel) -> Guard | None:
    """The guard of an alignment that `config` asks for; the key is consumed.

    None where nothing is watched, and of tokens, which are noised otherwise.
    """
    if not config.watched or not isinstance(model, Model):
        return None
    shown = jnp.asarray(conditions(given.rows))[: config.watched]
    found = jax.jit(known, static_argnums=3)(key, given.params, given.rows, model)
    return Guard(found, given.params, shown, model, config.off_support_bound, config.watched)
