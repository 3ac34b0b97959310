"""A mixture in the plane whose optimum is known: what alignment is measured on.

Four modes, a linear reward, and a model that is exact before it learns: the mixture's own denoiser and a
small network that begins at zero. The tilt `p(x) exp(r(x) / beta)` of a mixture of Gaussians by a linear
reward is again one, so the optimum of `max E[r] - beta KL` can be drawn from (Uehara et al. 2024, arXiv
2402.15194, for the objective).
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import i0e, i1e
from jax.tree_util import Partial

from jdp.alignment.models import Given, Model
from jdp.diffusion import exact
from jdp.diffusion.denoiser import edm_preconditioning, network_levels
from jdp.diffusion.sampling import Sampling
from jdp.diffusion.transitions import consistency, euler_step, heun_step
from jdp.networks.mlp import mlp
from jdp.types import Bound, Denoiser, Network, Params, bind, expand

FAR = 4.0  # standard deviations from every mode, beyond which a sample is off the support


@dataclass(frozen=True)
class Mixture:
    """Isotropic Gaussians of one standard deviation."""

    means: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    std: float

    def sample(self, key: Array, count: int) -> Array:
        """`[count, D]`; the key is consumed."""
        which, noise = jax.random.split(key)
        mode = jax.random.choice(which, len(self.weights), (count,), p=jnp.array(self.weights))
        return jnp.array(self.means)[mode] + self.std * jax.random.normal(noise, (count, len(self.means[0])))

    def denoiser(self) -> Partial:
        """The posterior mean in closed form."""
        stds = jnp.full(len(self.weights), self.std)
        return exact.mixture(jnp.array(self.weights), jnp.array(self.means), stds)

    def tilted(self, slope: tuple[float, ...], beta: float) -> "Mixture":
        """`p(x) exp(slope . x / beta)`, normalised: means move by `std^2 slope / beta`."""
        a, means = np.array(slope) / beta, np.array(self.means)
        log = np.log(self.weights) + means @ a
        weights = np.exp(log - log.max())
        moved = means + self.std**2 * a
        return Mixture(
            tuple(tuple(float(x) for x in mean) for mean in moved),
            tuple(float(w) for w in weights / weights.sum()),
            self.std,
        )


FOUR = Mixture(((2.0, 2.0), (2.0, -2.0), (-2.0, 2.0), (-2.0, -2.0)), (0.25,) * 4, 0.3)
SLOPE = (0.5, 0.25)
LOWEST = 0.02  # the level from which the ODE's last step goes to 0
NETWORK: Network = mlp((64, 64, 2), activation="mish", last_limit=0.0)


def _corrected(
    params: Params, condition: Array, found: Array, x: Array, sigma: Array, network: Network
) -> Array:
    """`found`, what is said of `x`, and the network's correction."""
    scales = edm_preconditioning(2.0)
    c_in, _, c_out = scales.scales(expand(sigma, x))
    level = scales.condition(network_levels(sigma, x))[..., None]
    return found + c_out * network.apply(params, jnp.concatenate([c_in * x, level, condition], axis=-1))


def _residual(
    params: Params, condition: Array, x: Array, sigma: Array, *, of: Mixture, network: Network
) -> Array:
    return _corrected(params, condition, of.denoiser()(x, sigma), x, sigma, network)


def _jump(
    params: Params, condition: Array, x: Array, sigma: Array, *, of: Mixture, network: Network, steps: int
) -> Array:
    falls = (LOWEST / jnp.maximum(sigma, LOWEST)) ** (1 / steps)  # by which the level falls in a step

    def once(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        y, level = carry
        return (heun_step(of.denoiser(), y, level, level * falls), level * falls), None

    (y, level), _ = jax.lax.scan(once, (x, sigma), None, length=steps)
    ended = euler_step(of.denoiser(), y, level, jnp.zeros_like(level))
    return _corrected(params, condition, ended, x, sigma, network)


def _denoiser(params: Params, condition: Array, *, of: Mixture, network: Network) -> Denoiser:
    return bind(_residual, params, condition, of=of, network=network)


def _consistency(params: Params, condition: Array, *, of: Mixture, network: Network, steps: int) -> Denoiser:
    return bind(_jump, params, condition, of=of, network=network, steps=steps)


def model(sampling: Sampling, of: Mixture = FOUR) -> Model:
    """The mixture's denoiser with a correction that learns."""
    settings = (("network", NETWORK), ("of", of))
    return Model(Bound(_denoiser, settings), (len(of.means[0]),), sampling)


def consistency_model(sampling: Sampling, of: Mixture = FOUR, *, steps: int = 12) -> Model:
    """Its consistency function, `steps` of the exact ODE, with a correction that learns."""
    settings = (("network", NETWORK), ("of", of), ("steps", steps))
    return Model(Bound(_consistency, settings), (len(of.means[0]),), sampling, step=consistency)


def _linear(slope: Array, x0: Array, condition: Array) -> Array:
    del condition
    return x0 @ slope


def given(key: Array) -> Given:
    """A correction of zero, the linear reward, and one condition that says nothing; the key is consumed."""
    reward = bind(_linear, jnp.array(SLOPE))
    return Given(NETWORK.init(key, jnp.zeros(3)), reward, jnp.zeros((1, 0)))


def _log_mode(x0: Array, condition: Array, *, of: Mixture) -> Array:
    square = jnp.sum(jnp.square(x0[:, None] - jnp.array(of.means)[None]), axis=-1)
    log = jnp.log(jnp.array(of.weights))[None] - 0.5 * square / of.std**2
    return jnp.sum(condition * jax.nn.log_softmax(log, axis=-1), axis=-1)


def given_modes(key: Array, of: Mixture = FOUR) -> Given:
    """A correction of zero, and conditions that ask for one mode each, `[K, K]`: the judge is `log p(k | x)`.

    The key is consumed.
    """
    modes = len(of.weights)
    return Given(NETWORK.init(key, jnp.zeros(3 + modes)), bind(_log_mode, of=of), jnp.eye(modes))


def _teacher(condition: Array, *, of: tuple[Mixture, ...]) -> Denoiser:
    return bind(_taught, condition, of=of)


def _taught(condition: Array, x: Array, sigma: Array, *, of: tuple[Mixture, ...]) -> Array:
    each = jnp.stack([one.denoiser()(x, sigma) for one in of], axis=1)
    return jnp.sum(each * condition[..., None], axis=1)


def given_teachers(key: Array, of: tuple[Mixture, ...]) -> Given:
    """A correction of zero, and conditions that choose among exact teachers; the key is consumed."""
    count = len(of)
    return Given(NETWORK.init(key, jnp.zeros(3 + count)), bind(_teacher, of=of), jnp.eye(count))


class Measured(NamedTuple):
    """How samples compare with a mixture."""

    energy_distance: Array  # [], 0 for its own samples
    mode_error: Array  # [], half the absolute differences of the shares of the modes
    reward: Array  # [], mean
    off_support: Array  # [], share beyond `FAR`


def energy_distance(x: Array, of: Mixture) -> Array:
    """`2 E|x - y| - E|x - x'| - E|y - y'|` of samples `[N, 2]` and the mixture, y, without bias.

    What holds of the mixture is exact (distances from a Gaussian in the plane are Rice's): the noise that is
    left is that of x.
    """
    means, weights = jnp.array(of.means), jnp.array(of.weights)
    across = jnp.mean(_rice(_gaps(x, of), of.std) @ weights)
    own = weights @ _rice(_gaps(means, of), of.std * np.sqrt(2.0).item()) @ weights
    gaps = jnp.sqrt(jnp.sum(jnp.square(x[:, None] - x[None]), axis=-1) + 1e-12)
    return 2 * across - jnp.sum(gaps) / (len(x) * (len(x) - 1)) - own


def _rice(gap: Array, std: float) -> Array:
    """The mean distance from a point of a Gaussian in the plane, whose mean is `gap` away."""
    z = jnp.square(gap / std) / 4
    return std * np.sqrt(np.pi / 2).item() * ((1 + 2 * z) * i0e(z) + 2 * z * i1e(z))


def off_support(x: Array, of: Mixture = FOUR) -> Array:
    """`[]`, the share of samples `[N, D]` beyond `FAR` of every mode."""
    return jnp.mean((jnp.min(_gaps(x, of), axis=1) > FAR * of.std).astype(jnp.float32))


def _gaps(x: Array, of: Mixture) -> Array:
    """`[N, K]`, distances of samples `[N, D]` from the modes."""
    return jnp.sqrt(jnp.sum(jnp.square(x[:, None] - jnp.array(of.means)[None]), axis=-1))


def measured(x: Array, of: Mixture, slope: tuple[float, ...] = SLOPE) -> Measured:
    """Samples `x` `[N, 2]` against the mixture `of`."""
    shares = jnp.mean(jax.nn.one_hot(jnp.argmin(_gaps(x, of), axis=1), len(of.means)), axis=0)
    return Measured(
        energy_distance(x, of),
        0.5 * jnp.sum(jnp.abs(shares - jnp.array(of.weights))),
        jnp.mean(x @ jnp.array(slope)),
        off_support(x, of),
    )
