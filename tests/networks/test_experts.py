"""Experts by the noise level: by hand, balanced, joined, and drawn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.networks.experts import Experts, ExpertTransformer, Router, fuse, fused, load_balance, routes

MODULE = ExpertTransformer(features=8, blocks=2, heads=2, experts=4, top_k=2)
LEVELS = jnp.linspace(-1.5, 1.0, 5)


@pytest.fixture(scope="module")
def params():
    """Shaken weights, whose routers choose by the level: their first ones hardly do."""
    rows = jnp.zeros((1, 3, 2)), jnp.zeros(1), jnp.zeros((1, 3))
    shapes, rng = jax.eval_shape(MODULE.init, jax.random.key(0), *rows), np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(0.7 * rng.normal(size=p.shape), jnp.float32), shapes)


def test_experts_are_gated_layers_weighted():
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(3, 4, 10)), rng.normal(size=(3, 5, 4))
    x, w = rng.normal(size=(2, 6, 4)), rng.uniform(size=(2, 1, 3))
    wanted = np.zeros((2, 6, 4))
    for e in range(3):
        value, gate = np.split(x @ up[e], 2, axis=-1)
        wanted += w[..., e : e + 1] * ((value * gate / (1 + np.exp(-gate))) @ down[e])
    leaves, x, w = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), ({"up": up, "down": down}, x, w))
    found = Experts(3, 5).apply({"params": leaves}, x, w)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_load_of_a_balanced_router_is_1_and_of_one_that_chooses_the_same_2():
    """Of 4 experts, of which 2 serve: each pair as often as any other, with equal probabilities."""
    pairs = np.array([[0, 1], [2, 3], [0, 2], [1, 3], [0, 3], [1, 2]])
    weights = jnp.asarray(np.eye(4)[pairs].sum(1)[None] / 2, jnp.float32)  # [1, 6, 4]
    assert load_balance(weights, jnp.full((1, 6, 4), 0.25)) == pytest.approx(1.0)
    same = jnp.array([0.5, 0.5, 0.0, 0.0])[None, None]
    assert load_balance(jnp.repeat(same, 6, 1), jnp.repeat(same, 6, 1)) == pytest.approx(2.0)
    # its gradient takes probability from those that serve more than others
    slope = jax.grad(lambda p: load_balance(jnp.repeat(same, 6, 1), p))(jnp.full((1, 6, 4), 0.25))
    assert (slope[..., :2] > 0).all() and (slope[..., 2:] == 0).all()


def test_joined_experts_are_the_routed_ones_with_less_arithmetic(params):
    x, seen = jax.random.normal(jax.random.key(2), (3, 3, 2)), jax.random.normal(jax.random.key(3), (3, 3))
    routed, joined = jax.jit(MODULE.apply), jax.jit(fused(MODULE))
    known = jax.jit(lambda params: fuse(MODULE, params, LEVELS))(params)
    weights = np.asarray(jax.jit(lambda params: routes(MODULE, params, LEVELS)[0])(params))
    np.testing.assert_array_equal((weights > 0).sum(-1), 2)
    assert len(np.unique(weights[0] > 0, axis=0)) > 1  # levels choose otherwise, so the test tells
    for level in LEVELS:
        wanted = routed(params, x, jnp.full(3, level), seen)
        found = joined(known, x, jnp.full(3, level), seen)
        assert jnp.abs(found - wanted).max() < 1e-6 * jnp.abs(wanted).max()
    assert np.isnan(joined(known, x, jnp.full(3, 0.3), seen)).all()
    assert np.isnan(joined(known, x, LEVELS[:3], seen)).all()
    c_noise = jnp.full(3, LEVELS[0])
    flops = [
        f.lower(p, x, c_noise, seen).compile().cost_analysis()["flops"]
        for f, p in ((routed, params), (joined, known))
    ]
    assert flops[1] < 0.75 * flops[0]


def test_a_router_draws_its_experts_without_replacement_by_their_probabilities():
    """The pair (first, second) has the probability `p_i p_j / (1 - p_i)`."""
    router, p, many = Router(3, 2), np.array([0.6, 0.3, 0.1]), jnp.zeros((20_000, 1, 4))
    shapes = jax.eval_shape(router.init, jax.random.key(0), many)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes)
    zeros["params"]["Dense_1"]["bias"] = jnp.log(jnp.asarray(p, jnp.float32))
    weights, probabilities = jax.jit(router.apply)(zeros, many, rngs={"router": jax.random.key(1)})
    np.testing.assert_allclose(probabilities[0, 0], p, rtol=1e-5)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, rtol=1e-5)
    left_out = [np.mean(np.asarray(weights)[:, 0, e] == 0) for e in range(3)]
    pair = p[:, None] * p[None] / (1 - p[:, None])
    wanted = [pair[i, j] + pair[j, i] for i, j in ((1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(left_out, wanted, atol=0.015)
    best = jax.jit(router.apply)(zeros, many)[0]
    np.testing.assert_allclose(best[0, 0], [2 / 3, 1 / 3, 0.0], rtol=1e-5)


def test_the_routes_of_a_key_are_those_of_the_network(params):
    """So that the loss of the balance, which is no part of the network's output, is of what was used."""

    @jax.jit
    def both(key, c_noise):
        taken = []

        def spy(method, args, kwargs, context):
            found = method(*args, **kwargs)
            if isinstance(context.module, Router) and context.method_name == "__call__":
                taken.append(found[0][:, 0])
            return found

        with nn.intercept_methods(spy):
            MODULE.apply(params, jnp.zeros((20, 3, 2)), c_noise, rngs={"router": key})
        return jnp.stack(taken), routes(MODULE, params, c_noise, key)[0]

    np.testing.assert_array_equal(*both(jax.random.key(5), jnp.repeat(LEVELS, 4)))
