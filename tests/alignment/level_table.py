"""A model whose parameters are one row a level, so that a gradient tells which steps it came from."""

import jax.numpy as jnp
import numpy as np

from jdp.alignment.learner import Aligned
from jdp.alignment.models import Model
from jdp.diffusion.sampling import Sampling
from jdp.learning.optimiser import Trained
from jdp.types import Bound, bind

SAMPLING = Sampling(sampler="euler", steps=4, sigma_min=0.5, sigma_max=4.0)
PARAMS = np.float32(0.1) * np.random.default_rng(0).normal(size=(SAMPLING.steps, 2)).astype(np.float32)


def _row(params, x, sigma):
    levels = SAMPLING.sigmas()[:-1]
    which = jnp.argmin(jnp.abs(sigma[..., None] - levels[None]), axis=-1)
    return 0.5 * x + jnp.asarray(params)[which]


def _denoiser(params, condition):
    del condition
    return bind(_row, params)


MODEL = Model(Bound(_denoiser, ()), (2,), SAMPLING)


def _judge(x0, condition):
    return jnp.sin(x0[:, 0]) + x0[:, 1] + condition[:, 0]


def state(params=PARAMS, judge=_judge, memory=()):
    """As if it had learned: the model as it was is all zeros."""
    return Aligned(Trained(params, ()), np.zeros_like(params), bind(judge), memory)


def conditions(count):
    """`[count, 1]`."""
    return np.arange(count, dtype=np.float32)[:, None]
