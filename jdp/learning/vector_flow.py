"""A rectified flow from noise to vectors, given a condition: of an MLP, as in FQL (arXiv 2502.02538)."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.diffusion import samplers
from jdp.diffusion.formulations import flow
from jdp.diffusion.times import TO_DATA
from jdp.learning.optimiser import Trained, begin, descend
from jdp.types import Bound, Metrics, Network, Params, named_keys

FLOW = flow(TO_DATA)  # from noise at time 0 to vectors at time 1


def _velocity(both: tuple[Params, Array], x: Array, t: Array, *, network: Network) -> Array:
    params, seen = both
    return network.apply(params, jnp.concatenate([seen, x, t[:, None]], axis=-1))


def push(params: Params, seen: Array, z: Array, steps: int, network: Network) -> Array:
    """`[B, D]`, where `steps` Euler steps of the flow lead from the noise `z` `[B, D]` at `seen` `[B, C]`.

    `network` takes condition, vector and time, `[B, C + D + 1]`, to a velocity `[B, D]`.
    """
    sigmas, apply = FLOW.schedule(steps), Bound(_velocity, (("network", network),))
    return samplers.euler(FLOW.denoiser(apply, (params, seen)), sigmas[0] * z, sigmas)


def matching_error(
    params: Params,
    seen: Array,
    x: Array,
    z: Array,
    sigma: Array,
    network: Network,
    weight: Array | None = None,
) -> Array:
    """`[]`, the mean of `weight |v((1 - t) z + t x, t) - (x - z)|^2` of vectors `x` and noise `z` `[B, D]`.

    Times are those of the levels `sigma` `[B]` (`FLOW.levels` draws them); `weight` is `[B]`.
    """
    apply = Bound(_velocity, (("network", network),))
    return FLOW.error(apply, (params, seen), x, sigma, z, weight)[0]


def fit(
    key: Array,
    seen: Array,
    x: Array,
    steps: Array,
    *,
    network: Network,
    optimiser: optax.GradientTransformation,
    batch_size: int,
) -> tuple[Params, Array]:
    """A new flow to vectors `x` `[N, D]` at `seen` `[N, C]`, and its mean loss; the key is consumed.

    Args:
        steps: `[]` int32, of the optimiser. The loop's length is data, so that a flow which is fitted now and
            then costs nothing in between: under a `vmap` over seeds, both branches of a `lax.cond` would run.
    """
    keys = named_keys(key, "init", "fit")
    fresh = network.init(keys["init"], jnp.zeros(seen.shape[1] + x.shape[1] + 1))

    def loss(params: Params, key: Array, seen: Array, x: Array) -> tuple[Array, Metrics]:
        drawn = named_keys(key, "noise", "time")
        z, sigma = jax.random.normal(drawn["noise"], x.shape), FLOW.levels(drawn["time"], len(x), x.dtype)
        found = matching_error(params, seen, x, z, sigma, network)
        return found, {"loss": found}

    def one(step: Array, carry: tuple[Trained, Array]) -> tuple[Trained, Array]:
        trained, total = carry
        drawn = named_keys(jax.random.fold_in(keys["fit"], step), "rows", "loss")
        places = jax.random.randint(drawn["rows"], (batch_size,), 0, len(x))
        trained, metrics = descend(optimiser, trained, loss, drawn["loss"], seen[places], x[places])
        return trained, total + metrics["loss"]

    trained, total = jax.lax.fori_loop(0, steps, one, (begin(optimiser, fresh), jnp.zeros(())))
    return trained.params, total / jnp.maximum(steps, 1)
