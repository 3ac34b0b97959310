"""Networks: convolutions against XLA's, parameter counts, lengths, levels and precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdp.networks import NetworkConfig, make, parameter_count
from jdp.networks.flat import joined
from jdp.networks.layers import TemporalConv, halve, stretch
from jdp.types import Network

B, T, D = 4, 8, 5
KINDS = ("unet", "residual_unet", "mixer", "transformer", "experts")
ANY_LENGTH = ("unet", "residual_unet", "transformer")


def shaken(params):
    """Random weights everywhere: layers that start at zero would hide what passes through them."""
    return jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(9), p.shape), params)


@pytest.fixture(scope="module")
def networks():
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    made = {}
    for kind in KINDS:
        net = make(NetworkConfig(kind, features=8, blocks=3))
        params = shaken(jax.jit(net.init)(jax.random.key(1), x, jnp.zeros(B)))
        made[kind] = jax.jit(net.apply), params
    return made


@pytest.mark.parametrize(("kernel_size", "length"), [(1, T), (2, T), (3, T), (5, T), (5, 4), (5, 2), (3, 1)])
def test_temporal_convolution_equals_xla(kernel_size, length):
    x = jax.random.normal(jax.random.key(0), (B, length, D))
    conv = TemporalConv(7, kernel_size)
    params = shaken(conv.init(jax.random.key(1), x))
    kernel, bias = params["params"]["Dense_0"]["kernel"], params["params"]["Dense_0"]["bias"]
    expected = jax.lax.conv_general_dilated(
        x, kernel.reshape(kernel_size, D, 7), (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    np.testing.assert_allclose(conv.apply(params, x), expected + bias[None, None], atol=1e-5)


@pytest.mark.parametrize(
    ("features", "channels", "count"),
    [(128, 16, 2_791_568), (1024, 16, 177_619_984), (1024, 25, 177_656_857)],
)
def test_the_unet_has_the_size_of_the_reference(features, channels, count):
    net = make(NetworkConfig("unet", features=features, blocks=3))
    x = jax.ShapeDtypeStruct((2, 32, channels), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x, jax.ShapeDtypeStruct((2,), jnp.float32))
    assert parameter_count(params) == count


@pytest.mark.parametrize("kind", KINDS)
def test_one_level_for_all_steps_equals_one_level_a_trajectory(networks, kind):
    apply, params = networks[kind]
    x, levels = jax.random.normal(jax.random.key(2), (B, T, D)), jnp.linspace(-1.5, 1.0, B)
    whole, steps = apply(params, x, levels), apply(params, x, jnp.repeat(levels[:, None], T, 1))
    np.testing.assert_allclose(steps, whole, atol=1e-4)
    # and the level matters, row by row
    other = apply(params, x, levels.at[1].add(0.5))
    changed = np.abs(np.asarray(other - whole)).max((1, 2)) > 1e-3
    np.testing.assert_array_equal(changed, [False, True, False, False])


def test_a_level_of_a_step_reaches_what_the_convolutions_reach():
    """One resolution: the level enters before the last convolution; norms are over channels only."""
    net = make(NetworkConfig("residual_unet", features=8, blocks=1))
    x, levels = jax.random.normal(jax.random.key(2), (B, T, D)), jnp.zeros((B, T))
    params = shaken(net.init(jax.random.key(1), x, levels))
    moved = net.apply(params, x, levels.at[:, 4].set(0.7)) - net.apply(params, x, levels)
    reached = np.abs(np.asarray(moved)).max((0, 2)) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(reached), [3, 4, 5])


@pytest.mark.parametrize("kind", KINDS)
def test_the_level_of_every_step_counts(networks, kind):
    apply, params = networks[kind]
    x, levels = jax.random.normal(jax.random.key(2), (B, T, D)), jnp.zeros((B, T))
    before = apply(params, x, levels)
    for t in (0, 3, T - 1):
        moved = np.abs(np.asarray(apply(params, x, levels.at[1, t].set(-1.0)) - before)).max((1, 2)) > 1e-4
        np.testing.assert_array_equal(moved, [False, True, False, False])


@pytest.mark.parametrize("kind", KINDS)
def test_trajectories_do_not_mix(networks, kind):
    apply, params = networks[kind]
    x, levels = jax.random.normal(jax.random.key(2), (B, T, D)), jnp.zeros(B)
    moved = np.abs(np.asarray(apply(params, x.at[2, 3].add(1.0), levels) - apply(params, x, levels)))
    np.testing.assert_array_equal(moved.max((1, 2)) > 0, [False, False, True, False])


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_hears_of_every_other(networks, kind):
    """With three resolutions the first step reaches the last of eight (transformer and mixer: at once)."""
    apply, params = networks[kind]
    x = jax.random.normal(jax.random.key(2), (B, T, D))
    moved = np.abs(
        np.asarray(apply(params, x.at[:, 0].add(2.0), jnp.zeros(B)) - apply(params, x, jnp.zeros(B)))
    )
    assert (moved.max((0, 2)) > 1e-6).all()


@pytest.mark.parametrize("length", [7, 12])
@pytest.mark.parametrize("kind", ["residual_unet", "transformer"])
def test_a_length_it_was_not_trained_on(networks, kind, length):
    apply, params = networks[kind]
    x = jax.random.normal(jax.random.key(3), (B, length, D))
    levels = jnp.full((B, length), 0.3)
    whole, steps = apply(params, x, levels[:, 0]), apply(params, x, levels)
    assert whole.shape == x.shape and np.isfinite(np.asarray(whole)).all()
    np.testing.assert_allclose(steps, whole, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_lengths(kind):
    net = make(NetworkConfig(kind, features=8, blocks=3))
    x = jax.random.normal(jax.random.key(0), (2, 5, D))
    params = shaken(jax.jit(net.init)(jax.random.key(1), x, jnp.zeros(2)))
    apply = jax.jit(net.apply)
    out = apply(params, x, jnp.zeros(2))
    last = apply(params, x.at[:, -1].add(1.0), jnp.zeros(2))
    assert np.isfinite(np.asarray(out)).all()
    assert (jnp.abs(last - out)[:, -1] > 1e-4).any()  # the odd last step is not lost


@pytest.mark.parametrize("kind", ANY_LENGTH)
def test_lengths_shorter_than_the_resolutions(kind):
    """Three resolutions of two steps: 2, 1, 1."""
    net = make(NetworkConfig(kind, features=8, blocks=3))
    x = jax.random.normal(jax.random.key(0), (2, 2, D))
    params = shaken(jax.jit(net.init)(jax.random.key(1), x, jnp.zeros(2)))
    whole, steps = net.apply(params, x, jnp.zeros(2)), net.apply(params, x, jnp.zeros((2, 2)))
    np.testing.assert_allclose(steps, whole, atol=1e-4)


def test_halve_and_stretch():
    x = jnp.arange(10.0).reshape(1, 5, 2)
    np.testing.assert_array_equal(halve(x)[0, :, 0], [1.0, 5.0])
    np.testing.assert_array_equal(stretch(halve(x), 5)[0, :, 0], [1.0, 1.0, 1.0, 5.0, 5.0])


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_near_and_leaves_as_float32(networks, kind):
    apply, params = networks[kind]
    x, levels = jax.random.normal(jax.random.key(2), (B, T, D)), jnp.linspace(-1.5, 1.0, B)
    with jax.numpy_dtype_promotion("standard"):  # flax's own norms mix bf16 with float32
        low = jax.jit(make(NetworkConfig(kind, features=8, blocks=3), "bf16").apply)(params, x, levels)
    full = apply(params, x, levels)
    assert low.dtype == jnp.float32
    # the arithmetic is bf16's (8 bits), and no coarser
    error = np.abs(np.asarray(low - full)).mean() / np.asarray(full).std()
    assert 1e-4 < error < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_float32_in_bf16(kind):
    net = make(NetworkConfig(kind, features=8, blocks=1), "bf16")
    x, levels = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(B, T, D), (B,)])
    with jax.numpy_dtype_promotion("standard"):  # as above
        params = jax.eval_shape(net.init, jax.random.key(0), x, levels)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_a_network_of_vectors_serves_sequences():
    """It sees all entries of a row side by side, from its first parameters on."""
    of_vectors = Network(
        lambda key, x, c_noise, condition: jnp.eye(x.shape[-1])[::-1],
        lambda params, x, c_noise, condition: x @ params + condition,
    )
    network, x, seen = joined(of_vectors), jnp.arange(12.0).reshape(2, 3, 2), jnp.ones((2, 1))
    params = network.init(jax.random.key(0), x, jnp.ones(2), seen)
    found = network.apply(params, x, jnp.ones(2), jnp.tile(seen, (1, 6)))
    np.testing.assert_array_equal(found, 1 + np.asarray(x)[:, ::-1, ::-1])
