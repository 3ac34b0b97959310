"""Whether samples lie where the data do: how well the model as it was finds them again under noise.

A sample of the data, noised to a middle level, is denoised to about itself; one that lies off the data is
drawn back to them. So the error of the reference's denoiser tells the two apart without a density. What is
usual is measured once, on the reference's own samples.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jdp.alignment.models import Model
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


def share_off(
    key: Array, support: Support, reference: Params, params: Params, rows: PyTree, count: int, model: Model
) -> Array:
    """`[]`, of `count` samples that `params` draw at conditions of `rows`; the key is consumed."""
    keys, shown = named_keys(key, "sample", "noise"), conditions(rows)
    shown = shown[jnp.arange(count) % len(shown)]
    x0 = model.sample(keys["sample"], params, shown)
    return jnp.mean(off(keys["noise"], support, reference, x0, shown, model).astype(jnp.float32))


class Watched(Protocol):
    """A state of alignment: `jdp.alignment.learner.Aligned`."""

    @property
    def trained(self) -> Trained: ...
    @property
    def reference(self) -> Params: ...
    @property
    def support(self) -> Any: ...  # Support, or () where nothing is watched


@partial(jax.jit, static_argnames=("count", "model"))
def _shares(states: Watched, rows: PyTree, count: int, model: Model) -> Array:
    """`[]`, or `[S]` of states `[S, ...]`, which all draw from the same noise."""

    def one(state: Watched) -> Array:
        own = state.support, state.reference, state.trained.params
        return share_off(jax.random.key(0), *own, rows, count, model)

    return (jax.vmap(one) if states.support.sigma.ndim > 1 else one)(states)


def left(
    bound: float, model: Model, rows: PyTree, *, samples: int = 1024
) -> Callable[[Watched, Logged], str | None]:
    """For `jdp.loops.train(..., stop_when=)`: why to stop, where more than `bound` of samples lie off.

    The state itself is judged, by `samples` of its own, so that what training goes back to has passed: the
    share among a chunk's metrics is a mean over its updates, and its last state may be further off. Of many
    seeds the worst one counts; nothing stops a state without a `Support`.

    Args:
        rows: of `Given`, at whose conditions is drawn.
    """
    shown = conditions(rows)[:samples]

    def reason(state: Watched, metrics: Logged) -> str | None:
        del metrics
        if not state.support:
            return None
        share = float(jnp.max(_shares(state, shown, samples, model)))
        if share <= bound:
            return None
        mend = "raise kl_weight, or bound the reward"
        return f"{share:.1%} of samples lie off the data, more than {bound:.1%}; {mend}"

    return reason
