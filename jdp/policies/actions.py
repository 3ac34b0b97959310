"""A conditioned diffusion of actions: its config, loss and samples, and the choice among them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm
from jdp.diffusion.samplers import SAMPLERS
from jdp.diffusion.schedules import karras
from jdp.errors import UserError
from jdp.networks import Precision
from jdp.networks.conditional_mlp import conditional_mlp, conditioned
from jdp.types import Denoiser, Network, Params, bind, named_keys


@dataclass(frozen=True)
class ActorConfig:
    """A conditioned diffusion of actions: its network, training and sampling.

    All policies use the EDM denoiser and a Karras schedule, where most of their papers use DDPM on 5
    variance-preserving levels. Of exact Gaussians of std 1, .3 and .1, 5 steps of DPM-Solver++(2M) from 5
    to .02 give spreads that are 6 %, 2 % and -12 % off; 5 steps of Euler -27 %, -31 % and -34 %; 5 of
    Euler (DDIM) on the papers' levels, 12.5 to .49, -24 %, -51 % and -80 %. Of two modes of std .1 they leave
    .6 %, 2.3 % and 13 % of the samples between the modes.
    """

    features: int = 256
    """Width of the denoiser."""
    blocks: int = 3
    """Residual blocks of two layers."""
    learning_rate: float = 3e-4
    """Of Adam at the first step."""
    steps: int = 1_000_000
    """Updates over which the learning rate falls to 0 by a cosine."""
    grad_norm: float | None = None
    """Largest norm of a gradient; longer ones are scaled down to it."""
    ema: float = 0.999
    """Decay of the averaged weights that are sampled from, per update."""
    sampler: str = "dpmpp_2m"
    """One of `jdp.diffusion.samplers.SAMPLERS`."""
    sampling_steps: int = 5
    """Steps of the sampler."""
    sigma_min: float = 0.02
    """Last positive level of the Karras schedule, in units of actions."""
    sigma_max: float = 5.0
    """First level of the Karras schedule."""
    rho: float = 7.0
    """Curvature of the Karras schedule."""
    sigma_data: float = 0.5
    """Standard deviation of actions within [-1, 1]."""
    p_mean: float = -1.2
    """Mean of ln sigma in training."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in training."""
    precision: Precision = "float32"
    """Of the denoiser's arithmetic; weights, optimiser, average, losses, critics and targets are float32."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.sampler not in SAMPLERS:
            raise UserError(f"{name}.sampler is {self.sampler!r}; one of {', '.join(SAMPLERS)}")
        if self.sampling_steps < 2 or not 0 < self.sigma_min < self.sigma_max:
            raise UserError(
                f"{name} needs sampling_steps >= 2 and 0 < sigma_min < sigma_max, "
                f"not {self.sampling_steps}, {self.sigma_min} and {self.sigma_max}"
            )

    def sigmas(self) -> Array:
        """`[sampling_steps + 1]`, the levels of sampling, the last one 0."""
        return karras(self.sampling_steps, self.sigma_min, self.sigma_max, self.rho)

    def network(self) -> Network:
        """Of actions `[B, D]`, seeing a condition `[B, C]`."""
        return conditional_mlp(self.features, self.blocks, precision=self.precision)

    def optimiser(self) -> optax.GradientTransformation:
        """Adam on the cosine, with gradients cut to `grad_norm`."""
        return adam(optax.cosine_decay_schedule(self.learning_rate, self.steps), self.grad_norm)


def adam(learning_rate: optax.ScalarOrSchedule, grad_norm: float | None) -> optax.GradientTransformation:
    """Adam, after gradients longer than `grad_norm` were scaled down to it."""
    found = optax.adam(learning_rate)
    return found if grad_norm is None else optax.chain(optax.clip_by_global_norm(grad_norm), found)


def levels(key: Array, count: int, config: ActorConfig) -> Array:
    """`[count]` noise levels of training, log-normal; the key is consumed."""
    return losses.log_normal_levels(key, count, jnp.float32, p_mean=config.p_mean, p_std=config.p_std)


def imitation_loss(
    key: Array, params: Params, seen: Array, x0: Array, sigma: Array, keep: Array, config: ActorConfig
) -> Array:
    """EDM's loss of actions `x0` `[B, D]` at levels `sigma` `[B]`, given conditions `seen` `[B, C]`.

    The mean is over the rows `keep` `[B]`. The key is consumed.
    """
    apply = conditioned(config.network().apply)
    weight = keep.astype(x0.dtype)
    weight = weight / jnp.maximum(jnp.mean(weight), 1 / weight.size)
    loss, _ = losses.denoising_at(
        key, apply, (params, seen), x0, sigma, weight=weight, sigma_data=config.sigma_data
    )
    return loss


def _clipped(denoiser: Denoiser, x: Array, sigma: Array) -> Array:
    return jnp.clip(denoiser(x, sigma), -1.0, 1.0)


def clipped(denoiser: Denoiser) -> Partial:
    """`denoiser`, whose denoised actions are clipped to [-1, 1]; so are those of any sampler then."""
    return bind(_clipped, denoiser)


def denoiser(params: Params, seen: Array, config: ActorConfig) -> Partial:
    """The denoiser of actions given conditions `seen` `[B, C]`, clipped."""
    return clipped(edm(conditioned(config.network().apply), (params, seen), sigma_data=config.sigma_data))


def sample(key: Array, denoiser: Denoiser, shape: tuple[int, ...], config: ActorConfig) -> Array:
    """Actions of `shape`, within [-1, 1] where the denoiser's are; the key is consumed.

    Gradients flow through the whole chain.
    """
    keys = named_keys(key, "start", "sampler")
    sigmas = config.sigmas()
    x = sigmas[0] * jax.random.normal(keys["start"], shape)
    return SAMPLERS[config.sampler](denoiser, x, sigmas, key=keys["sampler"])


def repeated(x: Array, count: int) -> Array:
    """`[B, ...] -> [B * count, ...]`, a row's copies side by side: so they stay on the devices of its row."""
    return jnp.repeat(x, count, axis=0)


def candidates(key: Array, params: Params, seen: Array, count: int, dim: int, config: ActorConfig) -> Array:
    """`[count, B, dim]`, samples given conditions `seen` `[B, C]`; the key is consumed."""
    many = repeated(seen, count)
    found = sample(key, denoiser(params, many, config), (many.shape[0], dim), config)
    return jnp.swapaxes(found.reshape(seen.shape[0], count, dim), 0, 1)


def select(key: Array, actions: Array, q: Array, temperature: float) -> Array:
    """`[B, A]`, one of `actions` `[N, B, A]` by their values `q` `[N, B]`; the key is consumed.

    The best at `temperature` 0, else a draw from `softmax(q / temperature)`.
    """
    if temperature > 0:  # rows first, so that those of a batch that was filled up do not change
        chosen = jax.random.categorical(key, q.T / temperature, axis=-1)
    else:
        chosen = jnp.argmax(q, axis=0)
    return jnp.take_along_axis(actions, chosen[None, :, None], axis=0)[0]
