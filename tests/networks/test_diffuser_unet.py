"""Diffuser's networks: the published size, and their parts against plain convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.networks import NetworkConfig, ValueNetworkConfig, make, make_value, parameter_count
from jdp.networks.diffuser_unet import Downsample, Upsample, mish, pooled

B, C = 2, 3


def shaken(params):
    return jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(9), p.shape), params)


def sequence(length, channels=C):
    return jax.random.normal(jax.random.key(length), (B, length, channels))


def test_the_network_has_the_published_size():
    net = make(NetworkConfig("diffuser_unet", features=32, blocks=4))
    x = jax.ShapeDtypeStruct((2, 32, 14), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x, jax.ShapeDtypeStruct((2,), jnp.float32))
    assert parameter_count(params) == 3_956_302


def test_mish_is_its_definition_and_finite_with_its_slope():
    x = jnp.concatenate([jnp.linspace(-30.0, 30.0, 601), jnp.array([-3e38, -100.0, 100.0, 3e38])])
    wide = np.asarray(x, np.float64)
    tanh = np.tanh(np.logaddexp(0.0, wide))
    np.testing.assert_allclose(mish(x), wide * tanh, rtol=2e-6, atol=1e-30)
    sigmoid = np.exp(-np.logaddexp(0.0, -wide))
    slope = tanh + np.clip(wide, -1e3, 1e3) * (1 - tanh**2) * sigmoid
    np.testing.assert_allclose(jax.vmap(jax.grad(mish))(x), slope, rtol=2e-5, atol=2e-6)


def transposed_convolution(x, kernel, bias):
    """Kernel `[4, C, C]`, stride 2, padding 1: input t adds `x_t W_i` to output `2 t + i - 1`."""
    batch, length, channels = x.shape
    out = np.zeros((batch, 2 * length + 2, channels))
    for t in range(length):
        for i in range(4):
            out[:, 2 * t + i] += x[:, t] @ kernel[i]
    return out[:, 1:-1] + bias


def convolution(x, kernel, bias):
    """Kernel `[3, C, C]`, stride 2, padding 1: output t is `sum_i x_(2 t + i - 1) W_i`."""
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    starts = range(0, x.shape[1], 2)
    return np.stack([sum(padded[:, t + i] @ kernel[i] for i in range(3)) for t in starts], 1) + bias


@pytest.mark.parametrize("length", [1, 4, 5])
def test_upsample_is_a_transposed_convolution(length):
    x, up = sequence(length), Upsample()
    params = shaken(up.init(jax.random.key(1), x))
    even, odd = (np.asarray(params["params"][f"Dense_{i}"]["kernel"]).reshape(2, C, C) for i in (0, 1))
    # Even outputs see the input before by the last tap and their own by the second; odd ones the others.
    kernel = np.stack([odd[1], even[1], odd[0], even[0]])
    expected = transposed_convolution(np.asarray(x), kernel, np.asarray(params["params"]["bias"]))
    np.testing.assert_allclose(np.asarray(up.apply(params, x)), expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 4, 5, 7])
def test_downsample_is_a_convolution_of_stride_two(length):
    x, down = sequence(length), Downsample()
    params = shaken(down.init(jax.random.key(1), x))
    dense = params["params"]["Dense_0"]
    kernel = np.asarray(dense["kernel"]).reshape(3, C, C)
    expected = convolution(np.asarray(x), kernel, np.asarray(dense["bias"]))
    np.testing.assert_allclose(np.asarray(down.apply(params, x)), expected, atol=1e-5)


@pytest.fixture(scope="module")
def small():
    net = make(NetworkConfig("diffuser_unet", features=8, blocks=3))
    params = shaken(jax.jit(net.init)(jax.random.key(1), sequence(8), jnp.zeros(B)))
    return jax.jit(net.apply), params


@pytest.mark.parametrize("length", [5, 7])
def test_an_odd_length_is_kept_and_every_entry_counts(small, length):
    apply, params = small
    x = sequence(length)
    out, back = jax.vjp(lambda x: apply(params, x, jnp.zeros(B)), x)
    assert out.shape == x.shape
    assert np.all(np.abs(back(jnp.ones_like(x))[0]) > 0)


def test_an_empty_condition_is_no_condition(small):
    apply, params = small
    x, level = sequence(8), jnp.array([-1.0, 0.5])
    np.testing.assert_array_equal(apply(params, x, level, jnp.zeros((B, 0))), apply(params, x, level))
    value = make_value(ValueNetworkConfig("half_unet", features=8, blocks=2))
    judge = jax.jit(value.apply)
    params = jax.jit(value.init)(jax.random.key(2), x, level)
    np.testing.assert_array_equal(judge(params, x, level, jnp.zeros((B, 0))), judge(params, x, level))
    shapes = jax.eval_shape(value.init, jax.random.key(2), x, level, jnp.zeros((B, 0)))
    assert jax.tree.structure(shapes) == jax.tree.structure(params)


def test_a_level_a_channel_counts_as_the_highest_of_its_step(small):
    apply, params = small
    x, level = sequence(8), jnp.array([-1.0, 0.5])
    levels = jnp.broadcast_to(level[:, None, None], x.shape).at[:, :, 0].set(-3.0)
    np.testing.assert_allclose(apply(params, x, levels), apply(params, x, level), atol=1e-5)
    steps = jnp.broadcast_to(level[:, None], x.shape[:2]).at[:, 0].set(-3.0)
    every = jnp.broadcast_to(steps[:, :, None], x.shape).at[:, :, 1].set(-4.0)
    np.testing.assert_allclose(apply(params, x, every), apply(params, x, steps), atol=1e-5)


@pytest.mark.parametrize("length", [5, 7, 8])
def test_equal_levels_of_steps_are_one_level(small, length):
    apply, params = small
    x, level = sequence(length), jnp.array([-1.0, 0.5])
    steps = apply(params, x, jnp.repeat(level[:, None], length, 1))
    np.testing.assert_allclose(steps, apply(params, x, level), atol=1e-5)


def test_every_level_of_a_step_counts(small):
    """Unlike their maximum: each lower one is heard, and those of one row by that row alone."""
    apply, params = small
    x, level = sequence(7), jnp.zeros((B, 7))
    before = apply(params, x, level)
    for t in range(7):
        moved = np.abs(np.asarray(apply(params, x, level.at[0, t].set(-1.0)) - before)).max((1, 2))
        assert moved[0] > 1e-3 and moved[1] == 0


def test_embeddings_of_neighbours_are_averaged():
    x = jnp.arange(10.0).reshape(1, 5, 2)
    finest, half, quarter = pooled(x, 3)
    np.testing.assert_array_equal(finest, x)
    np.testing.assert_array_equal(half[0, :, 0], [1.0, 5.0, 8.0])  # an odd last one stands for itself
    np.testing.assert_array_equal(quarter[0, :, 0], [3.0, 8.0])
    assert all(one is x[:, 0] or one.shape == (1, 2) for one in pooled(x[:, 0], 3))
