"""Experts of parts of a mixture are, by a router, the whole: to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.devices import count_compilations
from jdp.diffusion import exact, experts
from jdp.diffusion.experts import joined, routed, shares
from jdp.diffusion.guidance import compose
from jdp.networks.mlp import mlp
from jdp.types import bind

WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])
MEANS = np.array([[-1.0, 0.5], [1.0, 1.0], [0.0, -1.0], [0.7, 0.2]])
STDS = np.array([0.3, 0.1, 0.2, 0.5])
PARTS = (np.array([0, 2]), np.array([1, 3]))  # two experts, of two components each
LEVELS = jnp.geomspace(0.01, 20.0, 16)
X = jax.random.normal(jax.random.key(0), (16, 2)) * jnp.sqrt(1 + jnp.square(LEVELS))[:, None]


def _by_part(logits, x, sigma):
    found = logits(x, sigma)
    return jnp.stack([jax.nn.logsumexp(found[..., part], axis=-1) for part in PARTS], axis=-1)


ROUTER = bind(_by_part, exact.mixture_logits(WEIGHTS, MEANS, STDS))


def expert(part):
    return exact.mixture(WEIGHTS[part] / WEIGHTS[part].sum(), MEANS[part], STDS[part])


def test_the_mixture_is_the_routed_sum_of_its_parts():
    whole = exact.mixture(WEIGHTS, MEANS, STDS)(X, LEVELS)
    found = routed([expert(part) for part in PARTS], ROUTER)(X, LEVELS)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    wrong = compose([expert(part) for part in PARTS], [0.4, 0.6])(X, LEVELS)  # the shares alone are no router
    assert np.abs(wrong - whole).max() > 0.3


def test_one_expert_or_some_are_those_that_are_most_probable():
    one = np.asarray(routed([expert(part) for part in PARTS], ROUTER, top_k=1)(X, LEVELS))
    best = np.argmax(ROUTER(X, LEVELS), axis=-1)
    alone = np.stack([expert(part)(X, LEVELS) for part in PARTS])[best, np.arange(16)]
    np.testing.assert_allclose(one, alone, atol=1e-7)
    logits = jnp.log(jnp.asarray(WEIGHTS, jnp.float32))
    np.testing.assert_allclose(shares(logits, 2), [0, 0, 3 / 7, 4 / 7], atol=1e-6)
    np.testing.assert_array_equal(shares(logits, 4), shares(logits))
    with pytest.raises(UserError, match="give one expert or more"):
        routed([], ROUTER)


def _constant(logits, x, sigma):
    del sigma
    return jnp.broadcast_to(logits, (x.shape[0], logits.shape[0]))


def test_constant_chances_are_a_composition_by_weights_and_others_compile_nothing():
    parts = [expert(part) for part in PARTS]
    weights = jnp.array([0.3, 0.7])
    by_router = routed(parts, bind(_constant, jnp.log(weights)))(X, LEVELS)
    np.testing.assert_allclose(by_router, joined(parts, weights)(X, LEVELS), atol=1e-6)
    run = jax.jit(lambda denoiser: denoiser(X, LEVELS))
    run(routed(parts, bind(_constant, jnp.log(weights))))
    counted, again = count_compilations(), routed(parts[::-1], bind(_constant, jnp.log(weights) + 1))
    before = counted.count
    run(again)
    assert counted.count == before


def test_the_loss_of_a_router_is_the_cross_entropy_that_it_says():
    """A network that says the same of all: the loss is that of its shares, whatever the noise."""
    network = mlp((3,))
    x0, cluster = jax.random.normal(jax.random.key(1), (6, 2, 2)), jnp.array([0, 0, 1, 2, 2, 2])
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(2), jnp.zeros((1, 5))))
    bias = jnp.log(jnp.array([0.5, 0.2, 0.3]))
    params = jax.tree.map(lambda leaf: bias if leaf.shape == (3,) else leaf, params)
    wanted = -(2 * np.log(0.5) + np.log(0.2) + 3 * np.log(0.3)) / 6
    for whose in (cluster, jax.nn.one_hot(cluster, 3)):
        loss, metrics = experts.routing(jax.random.key(3), network.apply, params, x0, whose)
        np.testing.assert_allclose(loss, wanted, rtol=1e-6)
        np.testing.assert_allclose(metrics["accuracy"], 2 / 6, rtol=1e-6)
