"""Blocks that are left out: nothing removed is bit-equal, and a block that adds nothing is not missed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp import UserError
from jdp.networks import NetworkConfig, make
from jdp.networks.conditional_mlp import conditional_mlp
from jdp.networks.depth import depth_prune, layer_blocks

BLOCKS, X, LEVELS = (
    2,
    np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32),
    jnp.linspace(-1, 1, 4),
)
# Of each kind: how it is made, what it sees, and the last layers of each block, as Flax names them.
KINDS = {
    "conditional_mlp": (
        lambda blocks: conditional_mlp(16, blocks),
        (X[:, 0], LEVELS, (X[:, 1], X[:, 2])),  # it is told something too
        [["Dense_3", "told_0"], ["Dense_5", "told_1"]],
    ),
    "transformer": (
        lambda blocks: make(NetworkConfig("transformer", 16, blocks)),
        (X, LEVELS, X[:, 0]),
        [["_Gate_0", "_Gate_1"], ["_Gate_2", "_Gate_3"]],
    ),
    "mixer": (
        lambda blocks: make(NetworkConfig("mixer", 16, blocks)),
        (X, LEVELS, X[:, 0]),
        [["Dense_2", "Dense_4"], ["Dense_6", "Dense_8"]],
    ),
}


def filled(network, seen):
    """Random parameters of its shapes; nothing is compiled."""
    rng, shapes = np.random.default_rng(1), jax.eval_shape(network.init, jax.random.key(2), *seen)
    return jax.tree.map(lambda p: rng.normal(scale=0.4, size=p.shape).astype(np.float32), shapes)


def silent(params, names):
    """`params`, of which the layers `names` say 0."""
    layers = {name: jax.tree.map(jnp.zeros_like, params["params"][name]) for name in names}
    return {"params": {**params["params"], **layers}}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    of, seen, last = KINDS[request.param]
    network = of(BLOCKS)
    return of, network, filled(network, seen), seen, last


def test_with_nothing_left_out_it_is_the_same(kind):
    _, network, params, _, _ = kind
    same, kept = depth_prune(network, params, range(BLOCKS))
    assert same == network and jax.tree.structure(kept) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_block_that_adds_nothing_is_not_missed(kind):
    """The first and the last one; one that does add something is missed."""
    of, network, params, seen, last = kind
    whole = jax.jit(network.apply)
    for block in range(BLOCKS):
        keep = [b for b in range(BLOCKS) if b != block]
        smaller, kept = depth_prune(network, params, keep)
        assert smaller == of(BLOCKS - 1)
        assert jax.tree.structure(kept) == jax.tree.structure(
            jax.eval_shape(smaller.init, jax.random.key(0), *seen)
        )
        found = jax.jit(smaller.apply)(kept, *seen)  # what the block holds does not matter: it is gone
        np.testing.assert_allclose(found, whole(silent(params, last[block]), *seen), rtol=1e-5, atol=1e-6)
        assert np.abs(np.asarray(found - whole(params, *seen))).max() > 1e-2


def test_layers_know_their_block(kind):
    _, network, params, _, last = kind
    found = layer_blocks(network, params)
    assert [[found[name] for name in names] for names in last] == [[b] * len(last[0]) for b in range(BLOCKS)]
    assert found["NoiseEmbedding_0"] is None and found["Dense_0"] is None


def test_what_cannot_be_left_out_is_refused(kind):
    _, network, params, _, _ = kind
    for keep in ([], [1, 0], [0, 2], [1, 1]):
        with pytest.raises(UserError, match="at least one of the blocks 0 to 1"):
            depth_prune(network, params, keep)
    with pytest.raises(UserError, match="not of ResidualUNet"):
        depth_prune(make(NetworkConfig()), params, [0])
