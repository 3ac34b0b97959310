"""A conditioned diffusion of actions: its config, loss and samples."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import Partial

from jdp.data.normalise import Affine, identity
from jdp.diffusion import formulations
from jdp.diffusion.formulations import Formulation
from jdp.diffusion.paths import differences, integrated
from jdp.learning.candidates import repeated
from jdp.learning.guides import Past, context_of, guided
from jdp.learning.optimiser import clipped_adam
from jdp.learning.scale import ActionScale, clip_action
from jdp.learning.vector_diffusion import VectorDiffusionConfig
from jdp.networks.conditional_mlp import conditioned
from jdp.policies.relabelled import share_of
from jdp.types import Coordinates, Denoiser, Guide, Params, PyTree, Spec, bind, expand


@dataclass(frozen=True)
class ActorConfig(VectorDiffusionConfig):
    """A conditioned diffusion of actions: its network, training and sampling.

    Policies use the EDM denoiser and a Karras schedule unless `trains` says otherwise, where most of their
    papers use DDPM on 5 variance-preserving levels. Of exact Gaussians of std 1, .3 and .1, 5 steps of
    DPM-Solver++(2M) from 5 to .02 give spreads that are 6 %, 2 % and -12 % off; 5 steps of Euler -27 %, -31 %
    and -34 %; 5 of Euler (DDIM) on the papers' levels, 12.5 to .49, -24 %, -51 % and -80 %. Of two modes of
    std .1 they leave .6 %, 2.3 % and 13 % of the samples between the modes.
    """

    grad_norm: float | None = None
    """Largest norm of a gradient; longer ones are scaled down to it."""
    sigma_data: float = 0.5
    """Standard deviation of actions within [-1, 1]."""

    def trains(self) -> Formulation:
        """What the network predicts, and the levels that it learns at."""
        return formulations.edm(self.p_mean, self.p_std, self.sigma_data)

    def optimiser(self) -> optax.GradientTransformation:
        """Adam on the cosine, with gradients cut to `grad_norm`."""
        return clipped_adam(optax.cosine_decay_schedule(self.learning_rate, self.steps), self.grad_norm)


def levels(key: Array, count: int, config: ActorConfig) -> Array:
    """`[count]` noise levels of training; the key is consumed."""
    return config.trains().levels(key, count, jnp.float32)


def imitation_loss(
    key: Array, params: Params, seen: PyTree, x0: Array, sigma: Array, keep: Array, config: ActorConfig
) -> Array:
    """The loss of actions `x0` `[B, D]` at levels `sigma` `[B]` or `[B, D]`, given `seen` `[B, C]`.

    (Or given whatever pytree the network of `config` is shown.)

    The mean is over the rows `keep` `[B]`. The key is consumed.
    """
    apply = conditioned(config.network().apply)
    weight = share_of(keep, x0.dtype)
    return config.trains().loss(key, apply, (params, seen), x0, sigma=sigma, weight=weight)[0]


def _clipped(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    return jnp.clip(denoiser(x, sigma), -1.0, 1.0)


def clipped(denoiser: Denoiser) -> Partial:
    """`denoiser`, whose denoised actions are clipped to [-1, 1]; so are those of any sampler then."""
    return bind(_clipped, denoiser)


def _clipped_path(denoiser: Denoiser, x: Array, sigma: Array, *, length: int) -> Array:
    steps = denoiser(x, sigma).reshape(x.shape[0], length, -1)
    return differences(clip_action(integrated(steps))).reshape(x.shape)


def clipped_path(denoiser: Denoiser, length: int) -> Partial:
    """`denoiser` of `length` steps from action to action, whose actions are clipped to [-1, 1]."""
    return bind(_clipped_path, denoiser, length=length)


def denoiser(params: Params, seen: PyTree, config: ActorConfig) -> Partial:
    """The denoiser of actions given conditions `seen` `[B, C]`, or a pytree, clipped."""
    return clipped(config.trains().denoiser(conditioned(config.network().apply), (params, seen)))


def coordinates(standardise: Affine, config: ActorConfig, spec: Spec) -> ActionScale:
    """What a guide is told of the units: actions are drawn as they are."""
    return ActionScale(standardise, identity(spec.action_dim), config.sigma_data)


def _of_chunks(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    if sigma.ndim > 1:  # a level an entry, as the chunk has them
        sigma = jnp.broadcast_to(expand(sigma, x), x.shape).reshape(x.shape[0], -1)
    return denoiser(x.reshape(x.shape[0], -1), sigma).reshape(x.shape)


def _of_vectors(denoiser: Denoiser, x: Array, sigma: Array, *, dim: int) -> Array:
    sigma = sigma if sigma.ndim < 2 else sigma.reshape(sigma.shape[0], -1, dim)
    return denoiser(x.reshape(x.shape[0], -1, dim), sigma).reshape(x.shape)


def steered(
    denoiser: Denoiser,
    guide: Guide | None,
    past: Past | tuple[()],
    goal: Array,
    scale: Coordinates,
    candidates: int = 1,
) -> Denoiser:
    """`denoiser` of actions `[B * candidates, T * A]`, where `guide` takes it; without a guide itself.

    The guide sees one of chunks `[B * candidates, T, A]`; what comes of it is clipped.
    """
    if guide is None:
        return denoiser
    assert isinstance(past, Past)  # a policy with a guide remembers
    context = context_of(scale, past, goal, guide)
    own = bind(_of_chunks, denoiser)
    chunks = guided(own, guide, context, candidates)
    if chunks is own:  # it steers nothing, and shall not move a rounding either
        return denoiser
    return clipped(bind(_of_vectors, chunks, dim=scale.action.mean.shape[0]))


def candidates(
    key: Array,
    params: Params,
    seen: Array,
    count: int,
    dim: int,
    config: ActorConfig,
    steer: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
) -> Array:
    """`[B * count, dim]`, `count` samples for each condition of `seen` `[B, C]`; the key is consumed.

    `steer` takes the denoiser of all of them to the one that is sampled.
    """
    many = repeated(seen, count)
    return config.sampling().draw(key, steer(denoiser(params, many, config)), (many.shape[0], dim))
