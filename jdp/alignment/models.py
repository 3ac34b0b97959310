"""What is aligned: a diffusion model of any parameters, how it is drawn from, and what alignment is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jdp.data.episodes import Episodes
from jdp.diffusion.discrete.samplers import Unmasked, Unmasking, unmask
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.transitions import Step, ddim
from jdp.types import AnyArray, Denoiser, Params, PyTree, TokenDenoiser

Reward = Callable[[Array, Array], Array]
# reward(x0 [B, *event], condition [B, C]) -> [B], of tokens [B, L] too; a pytree (`jdp.types.bind`), so what
# it is made of is data


class Model(NamedTuple):
    """A diffusion model as a function of its parameters; hashable, and equal models compare equal."""

    denoiser: Callable[[Params, Array], Denoiser]  # (params, condition [B, C]) -> denoiser of x [B, *event]
    event: tuple[int, ...]  # the shape of one sample
    sampling: Sampling  # the levels that a chain goes down
    counts: Callable[[], Array] | None = None
    # counts() -> [*event] bool, the entries that are drawn: others are prescribed by the condition, as the
    # present is in a plan, and count in no density and no error; None: all
    step: Step = ddim  # of the chains whose divergence is told

    @property
    def event_axes(self) -> tuple[int, ...]:
        """Those of a sample, counted from the end."""
        return tuple(range(-len(self.event), 0))

    @property
    def mask(self) -> Array | None:
        """`[1, *event]` bool, the entries that count; None: all."""
        return None if self.counts is None else self.counts()[None]

    @property
    def size(self) -> Array | int:
        """How many entries count."""
        mask = self.mask
        return math.prod(self.event) if mask is None else jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)

    def start(self, key: Array, count: int) -> Array:
        """`[count, *event]`, what chains begin with; the key is consumed."""
        return self.sampling.sigmas()[0] * jax.random.normal(key, (count, *self.event))

    def sample(self, key: Array, params: Params, condition: Array) -> Array:
        """`[B, *event]` at conditions `[B, C]`, drawn as the model is used; the key is consumed."""
        denoiser = self.denoiser(params, condition)
        return self.sampling.draw(key, denoiser, (len(condition), *self.event))


class TokenModel(NamedTuple):
    """The same of tokens `[B, L]`: masked diffusion. Methods on tokens take it in the place of a `Model`."""

    denoiser: Callable[[Params, Array], TokenDenoiser]  # (params, condition [B, C]) -> denoiser of [B, L]
    length: int  # L
    vocabulary: int  # V: tokens are below it, and it is the mask
    sampling: Unmasking  # in which order tokens are shown

    def start(self, count: int) -> Array:
        """`[count, L]`, what chains begin with: all masked."""
        return jnp.full((count, self.length), self.vocabulary, jnp.int32)

    def chain(self, key: Array, params: Params, condition: Array) -> Unmasked:
        """Of `[B, L]` at conditions `[B, C]`; the key is consumed."""
        denoiser = self.denoiser(params, condition)
        return unmask(key, denoiser, self.start(len(condition)), self.sampling, self.vocabulary)

    def sample(self, key: Array, params: Params, condition: Array) -> Array:
        """`[B, L]` at conditions `[B, C]`; the key is consumed."""
        return self.chain(key, params, condition).tokens


AnyModel = Model | TokenModel


class Given(NamedTuple):
    """What alignment starts from: the model's parameters, which it is held to, and a judge."""

    params: Params
    judge: PyTree  # a `Reward`, parameters of teachers, or ()
    rows: PyTree  # [N, ...], what batches are drawn from: conditions [N, C], or what a method says


@dataclass(frozen=True)
class GivenDraw:
    """Rows of `Given`, uniform and with replacement."""

    def prepare(self, episodes: Episodes) -> PyTree:
        """Nothing: what is given says it all."""
        raise NotImplementedError("alignment draws from Given, not from episodes")

    def view(self, rows: Given) -> Given:
        """All that is given."""
        return rows

    def tables(self, rows: Given) -> AnyArray:
        """How many rows there are."""
        return np.int32(len(jax.tree.leaves(rows.rows)[0]))

    def locate(self, key: Array, tables: AnyArray, batch_size: int) -> Array:
        """`[B]`."""
        return jax.random.randint(key, (batch_size,), 0, tables)

    def take(self, rows: Given, located: AnyArray) -> PyTree:
        """`[B, ...]`."""
        return jax.tree.map(lambda x: x[located], rows.rows)
