"""Denoisers of parts of the data, joined by a router: decentralized diffusion models (arXiv 2501.05450).

Of data in K clusters the denoiser is the mean of those of the clusters, by the chance that the noised point
came from each (their section 3, equation 7, for flows):

    D(x, sigma) = sum_k p(k | x, sigma) D_k(x, sigma)

which is exact, whatever the clusters are. So each expert is an ordinary denoiser, trained alone on its
cluster; and the router is a classifier of noised points, whatever its experts became.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jdp.diffusion import losses
from jdp.diffusion.denoiser import edm_preconditioning, log_level
from jdp.diffusion.guidance.composition import compose
from jdp.errors import UserError
from jdp.types import Denoiser, Metrics, Params, bind, expand, named_keys


class Router(Protocol):
    """`(x, sigma) -> logits`: of which expert's data a noised `x` is; a pytree, as denoisers are.

    `x` is `[..., D]` or `[..., T, D]`, `sigma` a prefix of its shape; the logits are `[*prefix, K]`, with a
    prefix of the shape of `x` for whose entries one expert speaks: `[B, K]` of plans `[B, T, D]`.
    """

    def __call__(self, x: Array, sigma: Array) -> Array: ...


def shares(logits: Array, top_k: int | None = None) -> Array:
    """`[..., K]`, the weights of the experts: all, or the `top_k` most probable alone; they sum to one."""
    if top_k is None or top_k >= logits.shape[-1]:
        return jax.nn.softmax(logits, axis=-1)
    best = jax.lax.top_k(logits, top_k)[1]
    among = jnp.sum(jax.nn.one_hot(best, logits.shape[-1]), axis=-2) > 0
    return jax.nn.softmax(jnp.where(among, logits, -jnp.inf), axis=-1)


def _routed(
    denoisers: tuple[Denoiser, ...], router: Router, x: Array, sigma: Array, *, top_k: int | None
) -> Array:
    weights = shares(router(x, sigma), top_k)
    found = [expand(weights[..., k], x) * denoiser(x, sigma) for k, denoiser in enumerate(denoisers)]
    return sum(found[1:], found[0])


def routed(denoisers: Sequence[Denoiser], router: Router, top_k: int | None = None) -> Partial:
    """The denoiser of all data, of experts of parts of them: the mean of theirs by the router's chances.

    They may differ in network, formulation and size, as in `compose`: each is called once. That is so with a
    `top_k` below K too, where the others' weights are 0: rows choose apart, so nothing is saved in a batch.
    It is a choice of quality: all are exact where experts and router are; of images the best two gave better
    samples than all (arXiv 2602.02685).

    Raises:
        UserError: for no expert, or `top_k` below 1.
    """
    if not denoisers or (top_k is not None and top_k < 1):
        raise UserError(
            f"{len(denoisers)} experts with top_k {top_k}: give one expert or more, and top_k >= 1"
        )
    return bind(_routed, tuple(denoisers), router, top_k=top_k)


def checked_weights(weights: Array | Sequence[float] | Router, members: int) -> Array | Router:
    """Weights `[..., K]` of K = `members` denoisers, or who routes between them; see `joined`.

    Raises:
        UserError: unless there is a weight for each of them.
    """
    if callable(weights):
        return weights
    found = jnp.asarray(weights, jnp.float32)
    if found.shape[-1:] != (members,):
        raise UserError(f"{members} models are composed, with weights of shape {found.shape}")
    return found


def joined(denoisers: Sequence[Denoiser], weights: Array | Router) -> Partial:
    """`routed` by a router; by weights `[K]` it is `compose`, a router whose logits are their logarithms."""
    if isinstance(weights, Array):
        return compose(denoisers, weights)
    return routed(denoisers, weights)


def router_input(x: Array, sigma: Array) -> Array:
    """`[B, T * D + 1]` of `x` `[B, T, D]`: of unit spread at every level, and the level.

    Of levels of single steps or entries each scales its own, and the router is told the highest.
    """
    scaled = (edm_preconditioning().scales(expand(sigma, x))[0] * x).reshape(x.shape[0], -1)
    level = log_level(jnp.broadcast_to(expand(sigma, x), x.shape)).reshape(x.shape[0], -1)
    return jnp.concatenate([scaled, jnp.max(level, axis=-1, keepdims=True)], axis=-1)


def _router(params: Params, x: Array, sigma: Array, *, apply: Callable[..., Array]) -> Array:
    return apply(params, router_input(x, sigma))


def router(apply: Callable[..., Array], params: Params) -> Partial:
    """The `Router` of a network `apply(params, [B, T * D + 1]) -> [B, K]` (`jdp.networks.mlp`)."""
    return bind(_router, params, apply=apply)


def routing(
    key: Array,
    apply: Callable[..., Array],
    params: Params,
    x0: Array,
    cluster: Array,
    *,
    p_mean: float = -1.2,
    p_std: float = 1.2,
) -> tuple[Array, Metrics]:
    """Cross-entropy of the router on noised data (arXiv 2501.05450, section 3.3); consumes the key.

    Args:
        x0: `[B, T, D]`, drawn from all clusters in proportion to their sizes: the shares are part of the
            chances.
        cluster: `[B]`, whose data each row is; or `[B, K]`, the chances of each.
        p_mean, p_std: of `ln sigma`, one level a row.
    """
    keys = named_keys(key, "level", "noise")
    sigma = losses.log_normal_levels(keys["level"], x0.shape[0], x0.dtype, p_mean=p_mean, p_std=p_std)
    x = x0 + expand(sigma, x0) * jax.random.normal(keys["noise"], x0.shape, x0.dtype)
    logits = router(apply, params)(x, sigma)
    whose = jax.nn.one_hot(cluster, logits.shape[-1]) if cluster.ndim == 1 else cluster
    loss = -jnp.mean(jnp.sum(whose * jax.nn.log_softmax(logits, axis=-1), axis=-1))
    right = jnp.mean(jnp.argmax(logits, axis=-1) == jnp.argmax(whose, axis=-1))
    return loss, {"loss": loss, "accuracy": right}
