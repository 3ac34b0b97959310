"""Eight devices compute what one does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.devices import check_divisible, data_mesh, split_batch
from jdp.diffusion import losses
from jdp.errors import UserError
from jdp.loops import fit
from jdp.networks import NetworkConfig, make

B, T, D = 16, 8, 5
NET = make(NetworkConfig("mixer", features=8, blocks=1))


def _draw(key, data):
    return data[jax.random.randint(key, (B,), 0, data.shape[0])]


def _update(key, state, x0):
    def loss_fn(params):
        return losses.denoising(key, NET.apply, params, x0)

    gradient, metrics = jax.grad(loss_fn, has_aux=True)(state[0])
    return (jax.tree.map(lambda p, g: p - 0.01 * g, state[0], gradient), gradient), metrics


def test_losses_and_gradients_of_eight_devices_are_those_of_one():
    assert len(jax.devices()) == 8
    data = jax.random.normal(jax.random.key(0), (64, T, D))
    results = []
    for mesh in (None, data_mesh()):
        params = NET.init(jax.random.key(1), data[:B], jnp.zeros(B))
        seen = []
        state = (params, jax.tree.map(jnp.zeros_like, params))
        state = fit(
            _update, _draw, state, data, key=jax.random.key(2), stop=3, chunk=1, mesh=mesh,
            after=lambda step, state, metrics, seen=seen: seen.append(metrics["loss"]),
        )  # fmt: skip
        results.append((seen, jax.tree.map(np.asarray, state)))
        devices = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)}
        assert devices == {1 if mesh is None else 8}
    (one, alone), (eight, together) = results
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    for a, b in zip(alone, together, strict=True):  # parameters, and the last gradient
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(a))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5 * largest)


def test_a_batch_is_split_and_not_copied():
    mesh = data_mesh()
    out = jax.jit(lambda x: split_batch(x, mesh, 1))(jnp.zeros((3, 16, 2)))
    assert {shard.data.shape for shard in out.addressable_shards} == {(3, 2, 2)}


def test_one_device_needs_no_mesh():
    assert data_mesh(jax.devices()[:1]) is None


def test_batches_must_divide():
    mesh = data_mesh()
    check_divisible(64, mesh, "--batch")
    check_divisible(63, None, "--batch")
    with pytest.raises(UserError, match=r"--batch 63 .* 8"):
        check_divisible(63, mesh, "--batch")
