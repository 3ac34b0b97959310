"""What a causal network says of a step depends on nothing that comes later."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.networks import from_module
from jdp.networks.causal_chunk import CausalChunk

B, T, D, F = 2, 5, 2, 3
NETWORK = from_module(CausalChunk(features=8, blocks=2, heads=2))


@pytest.fixture(scope="module")
def network():
    """`said(x, channel) -> [B, T, D]` of random weights, and what it is told."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, channel = jax.random.normal(keys[0], (B, T, D)), jax.random.normal(keys[1], (B, T, F))
    level, seen = jnp.full(B, 0.3), jnp.ones((B, 4))
    params = jax.jit(NETWORK.init)(keys[2], x, level, (seen, channel))
    rng = np.random.default_rng(0)  # in numpy: no program for every shape
    params = jax.tree.map(
        lambda p: (np.asarray(p) + 0.3 * rng.normal(size=p.shape)).astype(np.float32), params
    )
    return lambda x, channel: NETWORK.apply(params, x, level, (seen, channel)), x, channel


def test_a_step_hears_of_every_step_up_to_it_and_of_none_after(network):
    """In both, noised actions and channel: the blocks of the Jacobian below the diagonal, and no others."""
    said, x, channel = network
    for jacobian in jax.jit(jax.jacrev(lambda *told: said(*told)[0], argnums=(0, 1)))(x, channel):
        heard = np.abs(np.asarray(jacobian)[:, :, 0]).max(axis=(1, 3)) > 0  # [T, T]
        np.testing.assert_array_equal(heard, np.tril(np.ones((T, T), bool)))


def test_what_comes_later_changes_no_bit_however_large(network):
    said, x, channel = jax.jit(network[0]), *network[1:]
    found = np.asarray(said(x, channel))
    for t in range(T - 1):
        other = np.asarray(said(x.at[:, t + 1 :].add(1e3), channel.at[:, t + 1 :].add(-1e3)))
        np.testing.assert_array_equal(other[:, : t + 1], found[:, : t + 1])
        assert (np.abs(other - found)[:, t + 1 :].max(axis=(0, 2)) > 1e-3).all()
