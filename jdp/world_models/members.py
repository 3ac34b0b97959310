"""Probabilistic networks side by side (PETS, arXiv 1805.12114): their outputs, their loss, rows for each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jdp.types import Metrics, Network, Params

LOG_VARIANCE = (-10.0, 0.5)  # where the learned bounds begin (MBPO's code)


class Outputs(NamedTuple):
    """What members say of the standardised targets."""

    mean: Array  # [M, B, O + 1]
    log_variance: Array  # [M, B, O + 1], within the learned bounds
    logit: Array | None  # [M, B], of a terminal; None where a rule decides


def begin(key: Array, network: Network, x: Array, members: int, dim: int) -> Params:
    """The first weights, `[M, ...]`, for inputs like `x` and `dim` targets; the key is consumed."""
    low, high = LOG_VARIANCE
    return {
        "network": jax.vmap(network.init, in_axes=(0, None))(jax.random.split(key, members), x),
        "low": jnp.full((members, dim), low, jnp.float32),
        "high": jnp.full((members, dim), high, jnp.float32),
    }


def soft_bound(log_variance: Array, low: Array, high: Array) -> Array:
    """`log_variance`, all `[..., D]`, pressed smoothly between `low` and `high` (PETS, appendix A.1)."""
    log_variance = high - jax.nn.softplus(high - log_variance)
    return low + jax.nn.softplus(log_variance - low)


def forward(params: Params, x: Array, network: Network) -> Outputs:
    """The members' outputs at standardised inputs: `[M, B, D]`, or `[B, D]` for all alike."""
    raw = jax.vmap(network.apply, in_axes=(0, 0 if x.ndim == 3 else None))(params["network"], x)
    dim = params["low"].shape[-1]
    low, high = params["low"][:, None], params["high"][:, None]
    return Outputs(
        mean=raw[..., :dim],
        log_variance=soft_bound(raw[..., dim : 2 * dim], low, high),
        logit=raw[..., 2 * dim] if raw.shape[-1] > 2 * dim else None,
    )


def decay_loss(params: Params, decay: tuple[float, ...]) -> Array:
    """`[]`, half the squared weights of every layer, times the layer's decay (or the one of all)."""
    layers = len(params["network"])
    weights = decay * layers if len(decay) == 1 else decay
    kernels = [params["network"][f"Dense_{i}"]["kernel"] for i in range(layers)]
    return sum(
        (0.5 * w * jnp.sum(jnp.square(k)) for w, k in zip(weights, kernels, strict=True)), jnp.zeros(())
    )


def loss(
    params: Params,
    x: Array,
    y: Array,
    terminal: Array,
    *,
    network: Network,
    bound_weight: float,
    decay: tuple[float, ...],
) -> tuple[Array, Metrics]:
    """Gaussian negative log-likelihood, summed over members (PETS, section 4), bounds and weight decay.

    `x` `[M, B, O + A]` and `y` `[M, B, O + 1]` are standardised; `terminal` `[M, B]` is used by a
    learned head only. In MBPO all members share one pair of bounds, which the sum of their
    likelihoods pulls; here every member has a pair, so that a snapshot of it is whole, and the cost of
    their widths is the mean over members: the pull on each is the same.
    """
    out = forward(params, x, network)
    square = jnp.square(out.mean - y)
    nll = jnp.mean(square * jnp.exp(-out.log_variance) + out.log_variance, axis=(1, 2))  # [M]
    width = jnp.mean(jnp.sum(params["high"] - params["low"], axis=1))
    total = jnp.sum(nll) + bound_weight * width + decay_loss(params, decay)
    metrics = {
        "nll": jnp.mean(nll),
        "mse": jnp.mean(square),
        "log_variance": jnp.mean(out.log_variance),
    }
    if out.logit is not None:
        entropy = jnp.mean(optax.sigmoid_binary_cross_entropy(out.logit, terminal), axis=1)  # [M]
        total += jnp.sum(entropy)
        metrics["terminal_entropy"] = jnp.mean(entropy)
    return total, {"loss": total, **metrics}


def dealt(key: Array, x: Array, members: int) -> tuple[Array, Array]:
    """Rows `x` `[B, D]` dealt among members, `[E, S, D]`, and the place `[B]` each has in `E * S`.

    Every row goes to every member with equal probability, and every member has as many rows, so a row
    is evaluated once, not by all members. Places left over hold zeros.
    """
    count = x.shape[0]
    share = -(-count // members)
    place = jax.random.permutation(key, members * share)[:count]
    placed = jnp.zeros((members * share, x.shape[1]), x.dtype).at[place].set(x, unique_indices=True)
    return placed.reshape(members, share, -1), place
